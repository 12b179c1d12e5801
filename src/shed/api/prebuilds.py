"""Prebuilds: sheds that are made ready ahead, for others to go on from."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.access import Right
from shed.api.base import Answer, Body, NoBody, Nothing, Params, Time, Warnings, WorkParams, says
from shed.api.endpoint import delete, get, post
from shed.api.making import CreateShed
from shed.api.sheds import PrebuildName

MOST_COMMANDS = 1000
MAX_LIMIT = 86400.0
"""Most seconds that the commands may take."""
DEFAULT_LIMIT = 3600.0
MIN_EVERY, MAX_EVERY = 60.0, 366 * 86400.0
"""Seconds from one build to the next."""


class Prebuild(Answer, kw_only=True, frozen=True):
    """One prebuild."""

    name: PrebuildName = ""
    status: Annotated[
        str, says("`ready`; `building`, where an earlier one may be used meanwhile; or `missing`: there is none.")
    ] = ""
    image: Annotated[str, says("The image, as it was asked for; empty: the server's default.")] = ""
    commands: Annotated[list[str], says("What makes a shed ready, in order; each is run by `sh -ec`.")] = []
    limit: Annotated[float, says("Seconds that the commands may take together.")] = 0.0
    every: Annotated[float, says("Seconds after which it is built anew; 0: when it is asked for.")] = 0.0
    snapshot: Annotated[str, says("The snapshot that sheds made from it begin with.")] = ""
    built_at: Annotated[Time, says("When that was made; empty: never.")] = ""
    memory_mb: Annotated[int, says("MiB of the VM whose memory is kept; 0: none.")] = 0
    disk_bytes: Annotated[int, says("What it takes up.")] = 0
    failed: Annotated[str, says("Why the last build has failed; empty when it has not.")] = ""


class PrebuildList(Answer, kw_only=True, frozen=True):
    """All prebuilds."""

    prebuilds: Annotated[list[Prebuild], says("By name.")] = []
    warnings: Warnings = []


class PrebuildParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One prebuild."""

    prebuild: PrebuildName


class PrebuildWorkParams(WorkParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One prebuild, and how to be told of the work."""

    prebuild: PrebuildName


class CreatePrebuild(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A prebuild to make."""

    shed: Annotated[
        CreateShed,
        says(
            "The shed that is made ready; its name is that of the prebuild.  Those that are made from it have the same "
            "settings, unless they are given others.  No `local_dir`, `ports`, `ttl`, `restart` or `prebuild`."
        ),
    ]
    commands: Annotated[
        Annotated[list[Annotated[str, Meta(max_length=64 << 10)]], Meta(max_length=MOST_COMMANDS)],
        says("What makes it ready, in order; each is run by `sh -ec` as the image's user.", secret=True),
    ] = []
    limit: Annotated[float, says("Seconds that they may take together.", exclusiveMinimum=0, maximum=MAX_LIMIT)] = (
        DEFAULT_LIMIT
    )
    every: Annotated[
        float | None,
        says(
            "Seconds after which it is built anew; absent: when it is asked for.", minimum=MIN_EVERY, maximum=MAX_EVERY
        ),
    ] = None


class RemovedPrebuild(Answer, kw_only=True, frozen=True):
    """A prebuild that is gone."""

    name: PrebuildName = ""


LIST_PREBUILDS = get("list_prebuilds", "/api/prebuilds", Right.READ, Nothing, PrebuildList, "List all prebuilds")
GET_PREBUILD = get("get_prebuild", "/api/prebuilds/{prebuild}", Right.READ, PrebuildParams, Prebuild, "Show a prebuild")
CREATE_PREBUILD = post(
    "create_prebuild",
    "/api/prebuilds",
    Right.USE,
    WorkParams,
    CreatePrebuild,
    Prebuild,
    "Make a shed ready, and keep it for others to go on from",
    status=201,
    events=True,
)
BUILD_PREBUILD = post(
    "build_prebuild",
    "/api/prebuilds/{prebuild}/build",
    Right.USE,
    PrebuildWorkParams,
    NoBody,
    Prebuild,
    "Build a prebuild anew; until that is done the earlier one is used",
    events=True,
)
REMOVE_PREBUILD = delete(
    "remove_prebuild",
    "/api/prebuilds/{prebuild}",
    Right.USE,
    PrebuildParams,
    RemovedPrebuild,
    "Remove a prebuild and its snapshot; sheds that were made from it keep what they have",
)
