"""The folder of the server's machine that a shed shares: what in it may run there by itself."""

from __future__ import annotations

from typing import Annotated

from shed.api.base import Answer, says
from shed.api.sheds import ShedName, ShedParams


class WorkspaceParams(ShedParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where to go on."""

    mount: Annotated[str, says("Where the shed has the folder.")] = "/workspace"
    after: Annotated[str | None, says("`after` of the last answer.")] = None


class Finding(Answer, kw_only=True, frozen=True):
    """Something in a shared folder that may run on the host by itself."""

    path: Annotated[str, says("Below the folder.")] = ""
    why: Annotated[str, says("What runs it.")] = ""
    changed: Annotated[bool, says("Whether it changed since the shed was made.")] = False


class Workspace(Answer, kw_only=True, frozen=True):
    """What in a shed's shared folder may run on the host.  A large folder takes several requests."""

    name: ShedName = ""
    local_dir: Annotated[str, says("The folder, on the server's machine.")] = ""
    local_dir_mode: Annotated[str, says("What the shed may do there: `rw`, `ro` or `git-rw`.")] = ""
    findings: Annotated[list[Finding], says("What was found.")] = []
    after: Annotated[str | None, says("Where the next request goes on; null at the end.")] = None
