"""What a backend is given, and what it must be able to do."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
    """Folder of this shed's own; the backend keeps sockets (or the way to them), its record and ``console.log``
    here.
    """
    shares: tuple[Share, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend works here, and how; `reason` is a sentence for people."""

    usable: bool
    accel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Template:
    """A machine that was saved when its agent had said hello, from which others of the same shape are restored."""

    path: Path
    """Its folder."""
    mark: str = ""
    """Tells it from one that was there before under the same name."""


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
        """Return when the link is gone: the VM ended, the agent fell silent, or, then with the reason, the guest misused it."""
        ...

    async def close(self) -> None:
        """End the link; the VM runs on."""
        ...


class Backend(Protocol):
    """One virtual machine monitor.

    The VM processes outlive this object: all it knows of them is on disk, in `Machine.state_dir`.
    """

    name: str
    network: Network

    async def probe(self) -> Probe:
        """Find out whether guests run here; the answer is cached per host boot."""
        ...

    async def start(self, machine: Machine, template: Template | None = None) -> tuple[str, ...]:
        """Start the VM process, detached from this one; return what the user should be warned of, a sentence each.

        With a `template` it goes on from there, and its agent will be at hello.  ``console.log`` begins anew.  Raises
        `BackendError` with its last lines when the process ends at once.
        """
        ...

    def template(self, machine: Machine) -> Template | None:
        """Return what `machine` can be restored from, checked; None when there is nothing, or this backend does not do that."""
        ...

    async def make_template(
        self, machine: Machine, rest: Callable[[Connection], Awaitable[None]], *, timeout: float
    ) -> Template:
        """Boot a machine like `machine`, with empty disks, have `rest` bring its agent to rest, and save it.

        `timeout` as for `connect`.

        Raises `ConflictError` when somebody is at it already, `BackendError` when it cannot be done; then nothing is
        left.
        """
        ...

    async def make_spare(
        self, machine: Machine, template: Template, rehearse: Callable[[Connection], Awaitable[None]], *, timeout: float
    ) -> None:
        """Restore `machine` from `template`, have `rehearse` prepare its agent, and let it stand still, to be claimed.

        Raises `BackendError`; then its VM is gone.
        """
        ...

    async def claim(self, spare: Machine, machine: Machine) -> None:
        """Make the VM of `spare` that of `machine`, with its disks and in its folder, and have it go on.

        Its agent is at hello.

        Raises `BackendError`; then the VM is gone.
        """
        ...

    async def sweep_templates(self) -> None:
        """Remove what a server that was killed while it made a template has left, its VM too."""
        ...

    def is_whole(self, template: Template) -> bool:
        """Tell whether `template` is what was saved, to the last byte; reads all of it, which can take seconds."""
        ...

    def drop_template(self, template: Template) -> None:
        """Never restore from `template` again: it is not what it should be.  VMs restored from it run on."""
        ...

    async def connect(self, state_dir: Path, *, timeout: float) -> Connection:
        """Return a link to the agent once it said hello; `timeout` in seconds.

        Raises `BackendError` (AGENT_TIMEOUT, VM_EXITED).
        """
        ...

    def liveness(self, state_dir: Path) -> Liveness:
        """Say whether the VM recorded in `state_dir` is alive and ours.  No record means NOT_OURS."""
        ...

    async def half_started(self, state_dir: Path) -> bool:
        """Tell whether the VM, which is alive and ours, was to be restored, and whoever did that has ended before it was done."""
        ...

    async def waits_for_room(self, state_dir: Path, *, go_on: bool) -> bool:
        """Tell whether the VM, which is alive and ours, stands still because the host's disk was full.

        With `go_on`, have it try again.

        Raises `BackendError` when it does not say.
        """
        ...

    async def wait_exit(self, state_dir: Path, *, timeout: float) -> bool:
        """Wait until the VM's process is gone; False when it still runs after `timeout` seconds."""
        ...

    async def kill(self, state_dir: Path) -> None:
        """End the VM now (SIGTERM, then SIGKILL), only when it is ours; can be called twice; clears the record."""
        ...

    def pid(self, state_dir: Path) -> int | None:
        """Return the recorded process id, for display."""
        ...
