"""How sheds start and stop, are suspended and kept awake, and go on."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.access import Right
from shed.api.base import Answer, Body, NoBody, says
from shed.api.endpoint import Old, delete, post
from shed.api.sheds import COLD, FORCE, MAX_WAIT, Lease, LeaseId, Shed, ShedName, ShedParams, ShedWorkParams
from shed.names import MAX_AWAKE, MAX_REASON


class StartShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How to start a shed."""

    cold: Annotated[bool, says(COLD)] = False
    disk_only: Annotated[bool, says("Boot the disk of a suspended shed: what ran there is gone.")] = False
    force: Annotated[bool, says(FORCE)] = False


class ResumeShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How to resume a shed."""

    force: Annotated[bool, says(FORCE)] = False


class KeepAwake(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long a shed is to stay awake."""

    seconds: Annotated[
        float, says("How long from now, if it is not released before.", minimum=1, maximum=MAX_AWAKE)
    ] = 3600.0
    reason: Annotated[Annotated[str, Meta(max_length=MAX_REASON)], says("What for.")] = ""


class ReleaseParams(ShedParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is to keep a shed awake no more."""

    lease: Annotated[LeaseId | None, says("Only this one; absent: all of the shed.")] = None


class Released(Answer, kw_only=True, frozen=True):
    """What keeps a shed awake no more."""

    name: ShedName = ""
    leases: Annotated[list[Lease], says("Those that were released.")] = []


class ProvisionShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which hooks to run."""

    again: Annotated[bool, says("Also the hook `install` that has succeeded before.")] = False
    limit: Annotated[float | None, says("Seconds for each hook.", exclusiveMinimum=0, maximum=MAX_WAIT)] = None
    agent: Annotated[
        str | None,
        says(
            "Socket of an SSH agent in the shed, by which its repository is cloned: `$SSH_AUTH_SOCK` of a session that "
            "forwards one.",
            pattern="^/[A-Za-z0-9._/-]+$",
            maxLength=100,
        ),
    ] = None


START_SHED = post(
    "start_shed",
    "/api/sheds/{name}/start",
    Right.USE,
    ShedWorkParams,
    StartShed,
    Shed,
    "Start a stopped shed; a suspended one goes on where it was",
    events=True,
    old=(Old("query", "cold", "cold"), Old("query", "force", "force")),
)
STOP_SHED = post(
    "stop_shed",
    "/api/sheds/{name}/stop",
    Right.USE,
    ShedWorkParams,
    NoBody,
    Shed,
    "Stop a running shed; its files stay",
    events=True,
)
SUSPEND_SHED = post(
    "suspend_shed",
    "/api/sheds/{name}/suspend",
    Right.USE,
    ShedWorkParams,
    NoBody,
    Shed,
    "Put what is in the memory of a running shed on the disk, and end its VM",
    events=True,
)
RESUME_SHED = post(
    "resume_shed",
    "/api/sheds/{name}/resume",
    Right.USE,
    ShedWorkParams,
    ResumeShed,
    Shed,
    "Have a suspended shed go on where it was",
    events=True,
)
KEEP_AWAKE = post(
    "keep_awake",
    "/api/sheds/{name}/awake",
    Right.USE,
    ShedParams,
    KeepAwake,
    Lease,
    "Have a shed not be suspended for being idle; a suspended one goes on",
    status=201,
)
RELEASE = delete(
    "release_awake",
    "/api/sheds/{name}/awake",
    Right.USE,
    ReleaseParams,
    Released,
    "Have a shed be kept awake no more",
)
PROVISION_SHED = post(
    "provision_shed",
    "/api/sheds/{name}/provision",
    Right.USE,
    ShedWorkParams,
    ProvisionShed,
    Shed,
    "Clone the repository of a shed that has none of it yet, and run the hooks of its project: `install`, unless it "
    "has succeeded before, and `startup`",
    events=True,
)
