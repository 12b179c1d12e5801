"""The server itself, and what its data takes up."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from shed.api.base import Answer, Body, PartialAnswer, says
from shed.api.images import PrunedBlob


class Info(PartialAnswer, kw_only=True, frozen=True):
    """What a server says of itself.  Only a client of the Unix socket is told the last three members."""

    name: Annotated[str, says("How the server calls itself.")] = ""
    version: Annotated[str, says("Of the program.")] = ""
    api_version: Annotated[int, says("Of this contract.")] = 0
    backend: Annotated[str, says("What runs its VMs.")] = ""
    acceleration: Annotated[str, says("How its VMs run: `kvm` or `tcg` (emulated), and why.", optional=True)] = ""
    http_port: Annotated[int | None, says("TCP port of this API, if it has one.", optional=True)] = None
    ssh_port: Annotated[int | None, says("TCP port of its SSH front, if it has one.", optional=True)] = None
    ssh: Annotated[str, says("Why it has no SSH front.", optional=True)] = ""
    pid: Annotated[int | None, says("Its process.", optional=True)] = None
    data_dir: Annotated[str, says("Where its data is.", optional=True)] = ""
    socket: Annotated[str, says("Its Unix socket.", optional=True)] = ""


class HostKey(Answer, kw_only=True, frozen=True):
    """By which key the SSH front is known."""

    host_key: Annotated[str, says("A public key: `TYPE BASE64`.")] = ""


class Stopping(Answer, kw_only=True, frozen=True):
    """The server ends; running sheds stay."""

    status: Annotated[str, says("`stopping`.")] = "stopping"


class UsageItem(Answer, kw_only=True, frozen=True):
    """One thing of a kind."""

    name: Annotated[str, says("Its name, or its path.")] = ""
    size_bytes: Annotated[int, says("As long as its files are.")] = 0
    disk_bytes: Annotated[int, says("What the file system has given them.")] = 0
    unique_bytes: Annotated[
        int | UnsetType,
        says("On the disk: what no other image has, or no clone shares.", optional=True),
    ] = UNSET


class UsageKind(Answer, kw_only=True, frozen=True):
    """All things of one kind."""

    count: Annotated[int, says("How many.")] = 0
    size_bytes: Annotated[int, says("Of all together; what they share counts once.")] = 0
    disk_bytes: Annotated[int, says("On the disk.")] = 0
    items: Annotated[list[UsageItem], says("Each of them.")] = []


class UsageTotal(Answer, kw_only=True, frozen=True):
    """All kinds together."""

    size_bytes: Annotated[int, says("As long as the files are.")] = 0
    disk_bytes: Annotated[int, says("On the disk.")] = 0


class Usage(Answer, kw_only=True, frozen=True):
    """What the server's data takes up."""

    kinds: Annotated[
        dict[str, UsageKind],
        says("`images`, `downloads`, `sheds`, `snapshots`, `templates`, `spares`, `logs` and `orphans`."),
    ] = {}
    total: Annotated[UsageTotal, says("All of it.")] = UsageTotal()


class Prune(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to delete: the scopes that are true, or without any all but `snapshots` and `logs`."""

    instances: Annotated[bool, says("Sheds that have been stopped for long.")] = False
    snapshots: Annotated[bool, says("Snapshots that have been here for long.")] = False
    images: Annotated[bool, says("What of the image store nobody needs.")] = False
    orphans: Annotated[bool, says("Files that belong to nothing.")] = False
    templates: Annotated[bool, says("Saved VMs from which none was restored for long; they are made again.")] = False
    logs: Annotated[bool, says("Old logs, and the beginnings of long console logs.")] = False
    until_seconds: Annotated[
        Annotated[float, Meta(ge=0)] | None, says("Leave what was used in so many seconds; absent: 72 hours.")
    ] = None
    log_tail_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None, says("How much of a console log stays; absent: 5 MiB.")
    ] = None
    dry_run: Annotated[bool, says("Only say what would go.")] = False


class PrunedItem(Answer, kw_only=True, frozen=True):
    """A shed, or a path, that goes."""

    name: Annotated[str, says("Its name, or its path.")] = ""
    size_bytes: Annotated[int, says("On the disk.")] = 0


class Pruned(Answer, kw_only=True, frozen=True):
    """What went, or would go, by scope."""

    instances: Annotated[list[PrunedItem], says("Sheds.")] = []
    snapshots: Annotated[list[PrunedItem], says("Snapshots.")] = []
    images: Annotated[list[PrunedBlob], says("Files of the image store.")] = []
    orphans: Annotated[list[PrunedItem], says("Files and folders.")] = []
    templates: Annotated[list[PrunedItem], says("Saved VMs.")] = []
    logs: Annotated[list[PrunedItem], says("Logs.")] = []
    consoles: Annotated[list[PrunedItem], says("Console logs that are cut, by how much.")] = []
    size_bytes: Annotated[int, says("All together.")] = 0
    dry_run: Annotated[bool, says("As asked.")] = False
