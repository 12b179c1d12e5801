"""A VM as everything outside its backend sees it: its description, its state, and the link to its agent.

What a backend does with these is in `shed.backends.interface`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shed.backends.guard.filter import ALL_SHARES, FREE, SHARES
from shed.errors import BackendError


@dataclass(frozen=True, slots=True)
class Disk:
    """One raw virtio-blk disk, in the order the guest sees them (vda, vdb, vdc)."""

    path: Path
    read_only: bool


@dataclass(frozen=True, slots=True)
class Share:
    """A host folder that the guest mounts over 9P by `tag`.

    `guest_uid` and `guest_gid` are the guest user that stands for the folder's owner on the host.
    """

    tag: str
    path: Path
    guest_uid: int
    guest_gid: int
    mode: str = "rw"
    """What the guest may do there: one of `SHARE_MODES`, enforced on the host."""


SHARE_MODES = ("rw", "ro", "git-rw")
"""Write, but nothing by which git would run programs on the host; read; write whatever it wants, except set-id bits."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything needed to start one VM."""

    name: str
    cpus: int
    memory_mb: int
    kernel: Path
    initrd: Path
    disks: tuple[Disk, ...]
    state_dir: Path
    """The VM's own directory.

    The backend keeps its record, its sockets (or the way to them) and ``console.log`` there.
    """
    shares: tuple[Share, ...] = ()
    mounts: tuple[Share, ...] | None = None
    """Folders that it has beside these, all by the tag `MOUNTS`; others may come and go while it runs.

    None: it can have none.
    """

    @property
    def folders(self) -> tuple[Share, ...]:
        """Return all folders of the host that it has."""
        return (*self.shares, *(self.mounts or ()))


MOUNTS = "mounts"


def mounted_at(path: Path, mode: str) -> str:
    """Return where a folder of the host is in what has the tag `MOUNTS`: its whole path, below one for its mode."""
    place = FREE if mode == "git-rw" else SHARES
    return f"{place.removeprefix(ALL_SHARES + b'/').decode()}{path}"


@dataclass(frozen=True, slots=True)
class Network:
    """What the guest must set up to reach the outside; user-mode networks hand out fixed values."""

    address: str
    """IPv4 address with prefix length."""
    gateway: str
    dns: str


class Liveness(enum.Enum):
    """The answer to "is the process of this record alive and ours"."""

    OURS = "ours"
    NOT_OURS = "not-ours"
    """There is no such process, or the pid belongs to something else now."""
    UNKNOWN = "unknown"
    """It cannot be told; treat the VM as running and signal nothing."""


class LinkError(BackendError):
    """The link to the agent is not usable."""

    code = "LINK_LOST"


class LinkAbusedError(LinkError):
    """The guest broke the protocol, or sent more that is of no use than a link may cost, so the link was dropped."""

    code = "LINK_ABUSED"


class Stream(Protocol):
    """A byte stream into the guest, with backpressure and half-close.  All methods belong to one event loop."""

    async def read(self, limit: int = 65536) -> bytes:
        """Return up to `limit` bytes; empty at the guest's end of file.

        Raises `BackendError` (STREAM_RESET) when it was cut.
        """
        ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; returns when the guest's window had room for it.

        Raises `BackendError` (STREAM_RESET).
        """
        ...

    async def write_eof(self) -> None:
        """Say that no more data follows; reading goes on."""
        ...

    def close(self) -> None:
        """Drop the stream, both ways, now; can be called twice."""
        ...


class Connection(Protocol):
    """A live link to the agent of one VM."""

    hello: dict[str, object]
    """What the agent said of itself: agent version, protocol, nonce."""

    async def open(self, port: int) -> Stream:
        """Open a stream to the guest's `port` (see `shed.guest.protocol`)."""
        ...

    async def wait_closed(self) -> LinkAbusedError | None:
        """Return when the link is gone, with the reason when the guest misused it.

        Else the VM ended, or the agent did not answer any more.
        """
        ...

    async def close(self) -> None:
        """End the link; the VM runs on."""
        ...
