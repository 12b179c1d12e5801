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


class ChangeMounts(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to change about the folders of a shed.  All of it is done, or nothing."""

    add: Annotated[list[MountText], says("Folders that it gets.")] = []
    remove: Annotated[list[str], says("Where it has those that it is to have no more.")] = []


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
