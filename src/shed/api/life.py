"""How sheds start and stop, are suspended, and go on."""

from __future__ import annotations

from typing import Annotated

from shed.api.access import Right
from shed.api.base import Body, NoBody, says
from shed.api.endpoint import Old, post
from shed.api.sheds import COLD, FORCE, Shed, ShedWorkParams


class StartShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How to start a shed."""

    cold: Annotated[bool, says(COLD)] = False
    disk_only: Annotated[bool, says("Boot the disk of a suspended shed: what ran there is gone.")] = False
    force: Annotated[bool, says(FORCE)] = False


class ResumeShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How to resume a shed."""

    force: Annotated[bool, says(FORCE)] = False


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
