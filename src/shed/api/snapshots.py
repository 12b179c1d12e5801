"""Snapshots: what a shed was at one moment."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.access import Right
from shed.api.base import Answer, Body, NoBody, Nothing, Params, Time, Timings, Warnings, WorkParams, says
from shed.api.endpoint import delete, get, post
from shed.api.sheds import Shed, ShedName, ShedWorkParams, SnapshotName

MOST_COMMENT = 1000
MOST_FORKS = 64


class Snapshot(Answer, kw_only=True, frozen=True):
    """One snapshot."""

    name: SnapshotName = ""
    created_at: Time = ""
    source_shed: Annotated[str, says("The shed that it was made of.")] = ""
    source_image: Annotated[str, says("The image of that shed, as it was asked for.")] = ""
    lower_digest: Annotated[str, says("Digest of the image's manifest.")] = ""
    lower_cached: Annotated[bool, says("Whether that image is here.")] = False
    backend: Annotated[str, says("What ran the shed's VM.")] = ""
    comment: Annotated[str, says("What its user noted of it.")] = ""
    size_bytes: Annotated[int, says("Size of the writable layer.")] = 0
    disk_bytes: Annotated[int, says("What it takes up; what clones share is counted in each.")] = 0
    memory_mb: Annotated[int, says("MiB of the VM whose memory is kept, too; 0: there is none.")] = 0
    egress: Annotated[
        list[str], says("Names of the profiles that a shed made from it has, unless it is given others.")
    ] = []


class SnapshotList(Answer, kw_only=True, frozen=True):
    """All snapshots."""

    snapshots: Annotated[list[Snapshot], says("By name.")] = []
    warnings: Warnings = []


class SnapshotParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One snapshot."""

    snapshot: SnapshotName


class SnapshotWorkParams(WorkParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One snapshot, and how to be told of the work."""

    snapshot: SnapshotName


class CreateSnapshot(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A snapshot to make of a shed."""

    shed: ShedName
    name: Annotated[SnapshotName | None, says("Its name; absent: that of the shed and a number.")] = None
    comment: Annotated[Annotated[str, Meta(max_length=MOST_COMMENT)], says("What to note of it.")] = ""
    disk_only: Annotated[bool, says("Do not keep the memory of a shed that runs.")] = False


class RollBack(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where a shed goes back to."""

    snapshot: Annotated[SnapshotName | None, says("Absent: the last one that was made of it.")] = None
    discard: Annotated[bool, says("Do not keep what it was as a snapshot.")] = False
    disk_only: Annotated[
        bool, says("Only its disk, though the snapshot has memory from which it could go on; it must be stopped.")
    ] = False


class ForkShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Sheds to make of a running one."""

    new_name: Annotated[ShedName, says("That of the fork; with `count` above 1 theirs are this, a dash and a number.")]
    count: Annotated[int, says("How many.", minimum=1, maximum=MOST_FORKS)] = 1


class Fork(Answer, kw_only=True, frozen=True):
    """What became of one fork."""

    name: ShedName = ""
    shed: Annotated[Shed | None, says("It; absent: it could not be made, and nothing is left of it.")] = None
    code: Annotated[str, says("The code of the error, if there is one.")] = ""
    message: Annotated[str, says("The error's sentence.")] = ""
    hint: Annotated[str, says("What to do about it.")] = ""


class Forks(Answer, kw_only=True, frozen=True):
    """What became of all forks."""

    forks: Annotated[list[Fork], says("In the order of their numbers.")] = []


class RemovedSnapshot(Answer, kw_only=True, frozen=True):
    """A snapshot that is gone."""

    name: SnapshotName = ""


class PushSnapshot(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where a snapshot goes."""

    destination: Annotated[str, Meta(min_length=1), says("`REGISTRY/REPOSITORY[:TAG]`.")]
    with_memory: Annotated[bool, says("Send what was in memory, too, with all secrets that are there.")] = False
    insecure: Annotated[bool, says("Speak plain HTTP with the registry.")] = False


class PushedSnapshot(Answer, kw_only=True, frozen=True):
    """What was pushed."""

    name: SnapshotName = ""
    destination: Annotated[str, says("Where to.")] = ""
    digest: Annotated[str, says("Of the manifest.")] = ""
    chunks: Annotated[int, says("Different pieces of the writable layer, and of the memory.")] = 0
    uploaded: Annotated[int, says("Those of them that the registry did not have.")] = 0
    uploaded_bytes: Annotated[int, says("Bytes that were sent.")] = 0
    timings: Timings = {}


class PullSnapshot(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A snapshot to pull from a registry."""

    reference: Annotated[str, Meta(min_length=1), says("`REGISTRY/REPOSITORY:TAG`, or with `@DIGEST`.")]
    name: Annotated[SnapshotName | None, says("Its name; absent: the last part of the repository's path.")] = None
    with_memory: Annotated[
        bool, says("Fetch what was in memory, too: what goes on from it runs what its maker had running.")
    ] = False
    insecure: Annotated[bool, says("Speak plain HTTP with the registry.")] = False


class PulledSnapshot(Answer, kw_only=True, frozen=True):
    """What was pulled."""

    snapshot: Annotated[Snapshot, says("What is known of it.")] = Snapshot()
    fetched: Annotated[int, says("Pieces of the writable layer, and of the memory, that came.")] = 0
    fetched_bytes: Annotated[int, says("Bytes that came.")] = 0
    timings: Timings = {}


LIST_SNAPSHOTS = get("list_snapshots", "/api/snapshots", Right.READ, Nothing, SnapshotList, "List all snapshots")
GET_SNAPSHOT = get("get_snapshot", "/api/snapshots/{snapshot}", Right.READ, SnapshotParams, Snapshot, "Show a snapshot")
CREATE_SNAPSHOT = post(
    "create_snapshot",
    "/api/snapshots",
    Right.USE,
    WorkParams,
    CreateSnapshot,
    Snapshot,
    "Keep what a shed has written, and what runs there",
    status=201,
    events=True,
)
ROLL_BACK_SHED = post(
    "roll_back_shed",
    "/api/sheds/{name}/rollback",
    Right.USE,
    ShedWorkParams,
    RollBack,
    Shed,
    "Have a shed go back to a snapshot, and go on from its memory, if there is some",
    events=True,
)
RESET_SHED = post(
    "reset_shed",
    "/api/sheds/{name}/reset",
    Right.USE,
    ShedWorkParams,
    NoBody,
    Shed,
    "Have a stopped shed begin anew, with its image alone",
    events=True,
)
FORK_SHED = post(
    "fork_shed",
    "/api/sheds/{name}/fork",
    Right.USE,
    ShedWorkParams,
    ForkShed,
    Forks,
    "Make sheds that go on from what a running one is now",
    status=201,
    events=True,
)
REMOVE_SNAPSHOT = delete(
    "remove_snapshot",
    "/api/snapshots/{snapshot}",
    Right.USE,
    SnapshotParams,
    RemovedSnapshot,
    "Remove a snapshot; sheds that were made from it keep what they have",
)
PUSH_SNAPSHOT = post(
    "push_snapshot",
    "/api/snapshots/{snapshot}/push",
    Right.ADMIN,
    SnapshotWorkParams,
    PushSnapshot,
    PushedSnapshot,
    "Push a snapshot to a registry",
    events=True,
)
PULL_SNAPSHOT = post(
    "pull_snapshot",
    "/api/snapshots/pull",
    Right.ADMIN,
    WorkParams,
    PullSnapshot,
    PulledSnapshot,
    "Pull a snapshot from a registry, as long as the client waits",
    status=201,
    events=True,
)
