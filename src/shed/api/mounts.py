"""The folders of the server's machine that a shed has."""

from __future__ import annotations

from typing import Annotated

from shed.api.access import Right
from shed.api.base import Answer, Body, says
from shed.api.endpoint import get, post
from shed.api.sheds import Mount, MountText, ShedName, ShedParams


class ShedMounts(Answer, kw_only=True, frozen=True):
    """The folders of the server's machine that a shed has."""

    name: ShedName = ""
    mounts: Annotated[list[Mount], says("Its workspace first, if that is one.")] = []
    warnings: Annotated[
        list[str], says("After a change: what it may have left to run by itself in folders that it lost.")
    ] = []


class ChangeMounts(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to change about the folders of a shed, also of one that runs: first those that go, one by one."""

    add: Annotated[list[MountText], says("Folders that it gets.")] = []
    remove: Annotated[list[str], says("Where it has those that it is to have no more.")] = []
    force: Annotated[bool, says("Take also those that programs in the shed use.")] = False


SHED_MOUNTS = get(
    "shed_mounts",
    "/api/sheds/{name}/mounts",
    Right.READ,
    ShedParams,
    ShedMounts,
    "Show the folders of the server's machine that a shed has",
)
CHANGE_MOUNTS = post(
    "change_mounts",
    "/api/sheds/{name}/mounts",
    Right.ADMIN,
    ShedParams,
    ChangeMounts,
    ShedMounts,
    "Give a shed folders of the server's machine, and take others from it",
)
