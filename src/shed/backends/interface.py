"""What every backend does, and what a backend may offer beyond that.

`Backend` is what every virtual machine monitor (VMM) can do.  All else is a capability: a small interface of its own
that a backend offers or not.  Callers ask for it, and do without when it is None::

    templates = backend.capabilities.templates
    if templates is not None:
        template = templates.find(machine)

A new capability is one interface here, and one field of `Capabilities`; backends that lack it need no change.  One that
is given (a `Machine`, a `Template`, a folder) and returns values knows nothing of sheds, images or the server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Protocol

from shed.backends.base import Connection, Liveness, Machine, Network, Share
from shed.checks import Result
from shed.errors import ShedError

Prepare = Callable[[Connection], Awaitable[None]]
"""Brings the agent at the other end of a link into the state that a VM is to be kept in.  May raise `BackendError`."""


class Backend(Protocol):
    """One virtual machine monitor.

    The VMs outlive this object: all it knows of them is on disk, in `Machine.state_dir`.
    """

    name: str
    capabilities: Capabilities

    @property
    def network(self) -> Network | None:
        """What every guest's network card is to be set up with; None where VMs have no network."""
        ...

    async def start(self, machine: Machine) -> tuple[str, ...]:
        """Boot the VM, detached from this process; return what the user should be warned of, a sentence each.

        ``console.log`` begins anew.  Raises `ConflictError` (SHED_ALREADY_RUNNING), and `BackendError` with the last
        lines of the console when the VM ends at once.  Nothing is left of a start that failed or was cancelled.
        """
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
        """Tell whether the VM, which is alive and ours, waits for a starter that is gone, and so never goes on."""
        ...

    async def wait_exit(self, state_dir: Path, *, timeout: float) -> bool:
        """Wait until the VM's process is gone; False when it still runs after `timeout` seconds."""
        ...

    async def kill(self, state_dir: Path) -> None:
        """End the VM now, only when it is ours, and clear its record; can be called twice.

        Raises `BackendError` when it does not end, or its record is damaged.
        """
        ...

    def pid(self, state_dir: Path) -> int | None:
        """Return the recorded process id, for display."""
        ...


@dataclass(frozen=True, slots=True)
class Template:
    """A VM that was saved when its agent had said hello; others of the same shape are restored from it."""

    path: Path
    """Its folder."""
    mark: str = ""
    """Tells it from one that was there before under the same name."""


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """What a template takes up on the disk, for whoever frees space."""

    path: Path
    lock: Path
    """Whoever holds this file may remove it."""
    runtime: str | None
    """File name of the runtime blob without which it is of no use; None when it is of no use already."""
    used: float = 0.0
    """When something was last restored from it, or it was made; in seconds since 1970."""


class Templates(Protocol):
    """Saves VMs and restores others from them."""

    def find(self, machine: Machine) -> Template | None:
        """Return what `machine` can be restored from, checked; None when there is nothing."""
        ...

    async def make(self, machine: Machine, prepare: Prepare, *, timeout: float) -> Template:
        """Boot a VM like `machine`, with empty disks, have `prepare` bring its agent to rest, and save it.

        `timeout` as for `Backend.connect`.  Raises `ConflictError` (LOCKED) when somebody is at it already,
        `BackendError` when it cannot be done; then nothing is left.
        """
        ...

    async def restore(self, machine: Machine, template: Template) -> tuple[str, ...]:
        """Start `machine` from `template`, with its agent at hello.  Otherwise as `Backend.start`."""
        ...

    def is_whole(self, template: Template) -> bool:
        """Tell whether `template` is what was saved, to the last byte.  Reads all of it, which can take seconds."""
        ...

    def drop(self, template: Template) -> None:
        """Never restore from `template` again.  VMs that were restored from it run on.  Raises `StorageError`."""
        ...

    async def sweep(self) -> None:
        """Remove what is left of a template whose maker was killed, its VM included."""
        ...

    def being_made(self) -> Mapping[Path, int]:
        """Return the state folders of VMs that are being saved, or were when their maker was killed, with their MiB."""
        ...

    def stored(self) -> Iterable[StoredTemplate]:
        """Return every template on the disk, and what removals that were cut short have left."""
        ...


class Spares(Protocol):
    """Keeps restored VMs paused, and turns one into the VM of a shed."""

    async def make(self, machine: Machine, template: Template, prepare: Prepare, *, timeout: float) -> None:
        """Restore `machine` from `template`, have `prepare` ready its agent, and pause it.

        Raises `BackendError`; then its VM is gone.
        """
        ...

    async def claim(self, spare: Machine, machine: Machine) -> None:
        """Make the VM of `spare` that of `machine`, with its disks and in its folder, and have it go on, at hello.

        Raises `BackendError`; then the VM is gone.
        """
        ...


class Networks(Protocol):
    """Has the card of each VM lead into a network namespace of its own, out of which only sockets lead, to a relay."""

    def problem(self) -> ShedError | None:
        """Return why that cannot be had on this host, None when it can.  Blocks for a moment the first time."""
        ...

    def sockets(self, state_dir: Path) -> list[socket]:
        """Return the sockets of a running VM's network namespace, which the caller closes: `shed.egress.network.netns`.

        Raises `BackendError` (NO_NETWORK).
        """
        ...


class FullDisk(Protocol):
    """Pauses a VM at a write for which the host's disk has no room: the guest sees a slow disk, not an error."""

    async def is_paused(self, state_dir: Path, *, resume: bool) -> bool:
        """Tell whether the VM, which is alive and ours, is paused because the host's disk was full.

        With `resume`, have it try again, and return False.  Raises `BackendError` when it does not answer.
        """
        ...


class Growing(Protocol):
    """Makes a disk of a running VM longer."""

    async def grow(self, state_dir: Path, disk: int, size: int) -> None:
        """Tell the VM that its disk of this index has `size` bytes now; the file is that long already.

        Raises `BackendError`.
        """
        ...


class Mounting(Protocol):
    """Gives a running VM folders of the host, which it serves by the tag `MOUNTS`, and takes them away."""

    def offers(self, state_dir: Path) -> bool:
        """Tell whether the VM was started so that it can have them: with `Machine.mounts`."""
        ...

    async def add(self, state_dir: Path, share: Share) -> None:
        """Give a VM a folder.  Raises `BackendError`, `UsageError`."""
        ...

    async def remove(self, state_dir: Path, share: Share) -> None:
        """Take a folder from a VM, also one that it uses; from then on nothing of it can be read or written there.

        Raises `BackendError` when that is not certain: then the caller ends the VM.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a VM whose memory is kept: what goes on from it has the same."""

    cpus: int
    memory_mb: int


Still = Callable[[], AbstractAsyncContextManager[None]]
"""Brings a guest to a stand for a moment, and has it go on."""


OF_THIS_HOST = ".here"
"""Suffix of a file of memory that says something of this host alone.  It does not travel, and is made anew."""


class Moments(Protocol):
    """Keeps what a running VM is at one moment, its first disk and its memory, and has others go on from there.

    What goes into a folder of memory are files, which may come to another host, but for those `OF_THIS_HOST`.
    """

    def shape(self, state_dir: Path) -> Shape:
        """Return the shape of the VM that runs there.  Raises `BackendError` (NOT_SAVED)."""
        ...

    async def keep(
        self, machine: Machine, disk: Path, memory: Path | None, still: Still, tell: Callable[[int, int], None]
    ) -> None:
        """Make the new file `disk` what the first disk of `machine`, which runs, is at one moment.

        What is in its memory at the same moment goes into the folder `memory`, which is empty, unless that is None.
        `still` is around the moment, in which the VM stands still; `tell` hears how many bytes of how many are copied,
        and ends it all by raising.  The VM runs on in any case.  Raises `BackendError` (NOT_SAVED), `StorageError`, and
        what these raise.
        """
        ...

    async def suspend(self, machine: Machine, memory: Path, commit: Callable[[], None]) -> None:
        """Put what is in the memory of `machine`, which runs, into the empty folder `memory`, and have `commit` called.

        From then on the VM stands still for good: the caller ends it.  If anything fails before, `commit` included, it
        runs on.  `machine` has the `shape` that it was started with.  Raises `BackendError` (NOT_SAVED),
        `StorageError`, and what `commit` does.
        """
        ...

    async def resume(self, machine: Machine, memory: Path, begins: Callable[[], None]) -> tuple[str, ...]:
        """Start the `machine` that was suspended, whose disk is as it was, from `memory`.

        `begins` is called at the last moment before it runs.  Otherwise as `go_on`.  Raises what `begins` does, too.
        """
        ...

    async def check(self, machine: Machine, memory: Path) -> None:
        """Raise `UnavailableError` (MEMORY_UNUSABLE) when `machine` cannot `go_on` from `memory` on this host."""
        ...

    async def go_on(self, machine: Machine, memory: Path) -> tuple[str, ...]:
        """Start `machine`, whose disk was kept with it, from `memory`; its agent sees that the host has hung up.

        Otherwise as `Backend.start`.  Raises `UnavailableError` (MEMORY_UNUSABLE), too, when it cannot on this host.
        """
        ...


class Diagnostics(Protocol):
    """Examines what the backend needs of this host, in rows of ``shed-server doctor``.

    What a method raises becomes a row, too.
    """

    def program(self) -> Iterable[Result]:
        """The VMM is here, and can be started."""
        ...

    def way(self) -> str:
        """Return how guests run, and what would make them faster; empty while it is not known.  Starts nothing."""
        ...

    def acceleration(self, kernel: Path | None) -> Iterable[Result]:
        """How guests run, found by starting `kernel`, if there is one."""
        ...

    def control_groups(self) -> Iterable[Result]:
        """Each VM gets a control group, which bounds its memory and its processor time."""
        ...

    def jail(self) -> Iterable[Result]:
        """The VMM can be confined, found by starting it so."""
        ...

    def is_jailed(self, state_dir: Path) -> bool:
        """Return whether the VM in `state_dir` is confined; one that an earlier version of shed started may not be."""
        ...

    def memory_bound(self) -> Iterable[Result]:
        """A process in a group such as VMs have is ended when it takes more memory than it may."""
        ...

    def shared_folders(self) -> Iterable[Result]:
        """The kernel can ask a supervisor about the names that a guest makes in a shared folder."""
        ...

    def console_is_bounded(self, state_dir: Path) -> bool:
        """Return whether the console log of the VM in `state_dir` is bounded, whether a server runs or not."""
        ...

    def templates(self) -> Iterable[Result]:
        """What VMs are restored from is what was saved, and can still be used."""
        ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend offers beyond what every one does; None: it does not."""

    templates: Templates | None = None
    spares: Spares | None = None
    """Offered only together with `templates`."""
    full_disk: FullDisk | None = None
    networks: Networks | None = None
    growing: Growing | None = None
    moments: Moments | None = None
    mounting: Mounting | None = None
    diagnostics: Diagnostics | None = None
