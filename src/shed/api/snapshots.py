"""Snapshots: what a shed had written at one moment."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.access import Right
from shed.api.base import Answer, Body, NoBody, Nothing, Params, Time, Warnings, WorkParams, says
from shed.api.endpoint import delete, get, post
from shed.api.sheds import Shed, ShedName, ShedWorkParams, SnapshotName

MOST_COMMENT = 1000


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


class CreateSnapshot(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A snapshot to make of a stopped shed."""

    shed: ShedName
    name: Annotated[SnapshotName | None, says("Its name; absent: that of the shed and a number.")] = None
    comment: Annotated[Annotated[str, Meta(max_length=MOST_COMMENT)], says("What to note of it.")] = ""


class RollBack(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where a stopped shed goes back to."""

    snapshot: Annotated[SnapshotName | None, says("Absent: the last one that was made of it.")] = None
    discard: Annotated[bool, says("Do not keep what it has written as a snapshot.")] = False


class RemovedSnapshot(Answer, kw_only=True, frozen=True):
    """A snapshot that is gone."""

    name: SnapshotName = ""


LIST_SNAPSHOTS = get("list_snapshots", "/api/snapshots", Right.READ, Nothing, SnapshotList, "List all snapshots")
GET_SNAPSHOT = get("get_snapshot", "/api/snapshots/{snapshot}", Right.READ, SnapshotParams, Snapshot, "Show a snapshot")
CREATE_SNAPSHOT = post(
    "create_snapshot",
    "/api/snapshots",
    Right.USE,
    WorkParams,
    CreateSnapshot,
    Snapshot,
    "Keep what a stopped shed has written",
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
    "Have a stopped shed begin with a snapshot again",
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
REMOVE_SNAPSHOT = delete(
    "remove_snapshot",
    "/api/snapshots/{snapshot}",
    Right.USE,
    SnapshotParams,
    RemovedSnapshot,
    "Remove a snapshot; sheds that were made from it keep what they have",
)
