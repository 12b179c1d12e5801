"""QEMU processes: started, found again, linked to, ended.

Everything that `shed.backends.interface.Backend` asks of every backend; what QEMU offers beyond it is built on this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from shed.backends import mux
from shed.backends.base import Connection, LinkError, Liveness, Machine
from shed.backends.qemu import (
    accel,
    budget,
    command,
    confined,
    groups,
    keeping,
    launchers,
    process,
    saving,
    tsc,
    userns,
)
from shed.egress.network import netns
from shed.errors import BackendError, ConflictError
from shed.run import missing_tool
from shed.threads import stoppable
from shed.untrusted import told

log = logging.getLogger(__name__)
PROGRAM = "qemu-system-x86_64"
INSTALL_HINT = "sudo apt-get install qemu-system-x86"
START_TIMEOUT = 30.0
"""Seconds until QEMU has set up the machine; it takes 0.2."""
ANSWER_TIMEOUT = 3.0
"""Seconds for what takes a machine that waits 15 ms, or one that runs less."""
_CALM_SECONDS = 1.0
"""From a start, which wants the processor for its guest, until the next one is prepared."""
_TERM_SECONDS, _KILL_SECONDS = 2.0, 10.0
_NO_MEMORY = "Cannot allocate memory"
"""What QEMU says."""
_LAST_LINES = 15
_LAST_BYTES = 8192
_LONGEST_LINE = 500
"""Characters of a line that are shown."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The files of a machine that was saved: its memory, and all else of its state."""

    memory: Path | None
    """None: it is in the state."""
    state: Path
    of_shed: bool = False
    """Whether it was a shed's; the memory was taken out of its state, unless there is none."""
    as_booted: bool = False
    """Whether it had booted for itself, see `shed.backends.qemu.command`."""


class QemuNetworks:
    """Has each VM's card lead into a network namespace; see `shed.backends.interface.Networks`."""

    def __init__(self) -> None:
        self._tried = False
        self._problem: netns.NoNetworkError | None = None

    def problem(self) -> netns.NoNetworkError | None:
        """Return why VMs have no network on this host; it is tried once."""
        if not self._tried:
            try:
                netns.make().close()
            except netns.NoNetworkError as error:
                self._problem = error
                log.warning("sheds have no network: %s; %s", error, error.hint)
            self._tried = True
        return self._problem

    def sockets(self, state_dir: Path) -> list[socket.socket]:
        """Return the sockets of a running VM's network namespace."""
        return netns.take(state_dir)


class Machines:
    """VMs as QEMU processes.

    `program` is QEMU's name or path.  The verdict on KVM is kept in the folder `cache`.  `control_groups` is ``auto``,
    ``require`` or ``never``.
    """

    def __init__(self, cache: Path, program: str, control_groups: str) -> None:
        self._cache = cache
        self.program = program
        self._control_groups = control_groups
        self.networks = QemuNetworks()
        self._preparing: asyncio.TimerHandle | None = None
        self._told: set[str] = set()
        """Why VMs run without a control group, as the log has it."""

    async def start(self, machine: Machine) -> tuple[str, ...]:
        """Boot the VM, detached from this process; see `shed.backends.interface.Backend`."""
        return await self.start_from(machine, None)

    async def start_from(
        self, machine: Machine, saved: Saved | None, begins: Callable[[], None] | None = None
    ) -> tuple[str, ...]:
        """As `start`, from the `saved` machine when it is given; `begins` is called right before it runs."""
        host = await asyncio.to_thread(self.host, machine)
        if saved is not None:
            host = replace(host, memory=saved.memory, restored=True, as_booted=saved.as_booted)
        userns.check_folders(machine.folders)  # before anything is removed
        state = self.liveness(machine.state_dir)
        if state is not Liveness.NOT_OURS:
            certainly = "runs already" if state is Liveness.OURS else "may be running: its process cannot be identified"
            raise ConflictError(f"the VM of shed {machine.name} {certainly}", code="SHED_ALREADY_RUNNING")
        try:
            record = await stoppable(partial(confined.start, machine, host, self.holding(machine, host)))
            await came_up(machine.state_dir, record, saved, begins)
            self._prepare_next(network=host.network)
        except BaseException:  # a start that is given up half way leaves nothing running
            with contextlib.suppress(BackendError):
                await self.kill(machine.state_dir)
            raise
        return ()

    def _prepare_next(self, *, network: bool) -> None:
        """Make what the next VM needs first, when nothing has been started for a moment."""

        def prepare() -> None:
            launchers.prepare()
            if network:
                netns.prepare()

        if self._preparing is not None:
            self._preparing.cancel()
        loop = asyncio.get_running_loop()
        self._preparing = loop.call_later(_CALM_SECONDS, lambda: loop.run_in_executor(None, prepare))

    def host(self, machine: Machine) -> command.Host:
        """Return what this host is to `machine`; blocks for seconds when KVM was not tried since the host's boot."""
        program = find_program(self.program)
        accelerator = accel.find(self._cache, program=program, kernel=machine.kernel).accel
        emulated = accelerator == "tcg"
        return command.Host(
            program,
            accelerator,
            str(uuid.uuid4()),
            tsc_khz=tsc.khz() if emulated else None,
            one_thread=emulated and machine.cpus > 1 and accel.one_thread(program),
            network=self.networks.problem() is None,
        )

    def holding(self, machine: Machine, host: command.Host, *, template: bool = False) -> Callable[[int], None]:
        """Return what holds the process of `machine`, before it is QEMU, to the machine's budget."""
        allowed = budget.plan(machine.cpus, machine.memory_mb, host.accel, template=template)

        def hold(pid: int) -> None:
            budget.apply(pid, allowed)
            if self._control_groups == "never":
                return
            try:
                groups.find().place(pid, f"{machine.name}-{host.uuid[:8]}", allowed)
            except BackendError as error:
                if self._control_groups == "require":
                    raise
                if error.message not in self._told:
                    self._told.add(error.message)
                    log.warning("%s; its memory and processor time are not bounded on the host", error)

        return hold

    async def connect(self, state_dir: Path, *, timeout: float) -> Connection:
        """Return a link to the agent once it said hello; see `shed.backends.interface.Backend`."""
        record = _load(state_dir)
        if record is None:
            raise BackendError(f"no VM runs in {state_dir}", code="VM_EXITED")
        with process.exit_event(record) as gone, process.reachable(state_dir, process.AGENT_SOCKET) as path:
            connecting = asyncio.create_task(mux.connect(path))
            gone.add_done_callback(lambda _: connecting.cancel())
            try:
                async with asyncio.timeout(timeout):
                    return await connecting
            except (TimeoutError, asyncio.CancelledError) as error:
                if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                    connecting.result().abort(LinkError("it came too late"))
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and (
                    not gone.done() or (task is not None and task.cancelling())
                ):
                    raise
            if gone.done():
                await process.console_settled(state_dir)
                raise BackendError(
                    f"the VM of shed {record.name} ended before its agent answered{_last_words(state_dir)}",
                    code="VM_EXITED",
                    hint="try again; when the host was short of memory, its kernel log says so",
                )
        raise BackendError(
            f"the agent of shed {record.name} did not answer within {timeout:g} s{_last_words(state_dir)}",
            code="AGENT_TIMEOUT",
            hint="give it more time when the host is busy: --timeout of create, start_timeout of the server's "
            "configuration",
        )

    def liveness(self, state_dir: Path) -> Liveness:
        """Say whether the VM recorded in `state_dir` is alive and ours."""
        return process.liveness(state_dir)

    async def half_started(self, state_dir: Path) -> bool:
        """Tell whether the VM waits for a state that nobody gives it any more.

        One that does not answer is left to others.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return not await keeping.goes_on(state_dir)
        except (OSError, TimeoutError, saving.MonitorError) as error:
            log.warning("the VM in %s does not say how it is: %s", state_dir, str(error) or "no answer")
            return False

    async def wait_exit(self, state_dir: Path, *, timeout: float) -> bool:
        """Wait until the VM's process is gone; False when it still runs after `timeout` seconds."""
        record = _load(state_dir)
        return record is None or await process.wait_exit(record, timeout=timeout)

    async def kill(self, state_dir: Path) -> None:
        """End the VM now, if it is ours, and forget it; can be called twice."""
        record = _load(state_dir)
        if record is not None:
            for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
                process.send_signal(record, number)
                if await process.wait_exit(record, timeout=seconds):
                    break
            else:
                raise BackendError(
                    f"process {record.pid}, the VM of shed {record.name}, does not end",
                    hint="the kernel log may say what it waits for",
                )
            await process.console_settled(state_dir)
        process.clear(state_dir)

    def pid(self, state_dir: Path) -> int | None:
        """Return the recorded process id, for display."""
        try:
            record = process.load(state_dir)
        except process.BrokenRecordError:
            return None
        return None if record is None else record.pid


def find_program(program: str) -> Path:
    """Return where QEMU is.  Raises `UnavailableError` with the command that installs it."""
    found = shutil.which(program)
    if found is None:
        raise missing_tool(program, INSTALL_HINT)
    return Path(found)


async def came_up(
    state_dir: Path, record: process.Record, saved: Saved | None, begins: Callable[[], None] | None = None
) -> None:
    """Wait until the machine is set up, and has gone on from `saved`, if it is given, once `begins` was called.

    Raises `BackendError` with QEMU's last words when it ends before.
    """
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await saving.resume(
                state_dir,
                None if saved is None else saved.state,
                whole=saved is None or not saved.of_shed,
                begins=begins,
            )
    except (OSError, TimeoutError, saving.MonitorError) as error:
        await process.console_settled(state_dir)
        words = _last_words(state_dir)
        hint = "free some memory of this machine, or ask for less: --memory of create" if _NO_MEMORY in words else None
        raise BackendError(
            f"the VM of shed {record.name} did not start{words}", code="VM_START_FAILED", hint=hint
        ) from error


@contextlib.asynccontextmanager
async def telling(name: str, seconds: float | None) -> AsyncIterator[None]:
    """Turn what goes wrong when a VM is told what to do, or takes longer than `seconds`, into a `BackendError`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (OSError, TimeoutError, process.BrokenRecordError, saving.MonitorError) as error:
        problem = str(error) or "it does not answer"
        raise BackendError(
            f"the VM of shed {name} does not do what it is told: {problem}", code="VM_START_FAILED"
        ) from error


def _load(state_dir: Path) -> process.Record | None:
    try:
        return process.load(state_dir)
    except process.BrokenRecordError as error:
        raise BackendError(
            str(error),
            code="VM_UNIDENTIFIED",
            hint="look for its QEMU process by name, end it by hand, and remove the file",
        ) from error


def _last_words(state_dir: Path) -> str:
    """Return the last lines of this boot's console and of what QEMU printed, to go behind a sentence."""
    words = ""
    for title, name in (("QEMU says", process.MESSAGES), ("the console's last lines", command.CONSOLE)):
        with contextlib.suppress(OSError), (state_dir / name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = [
                told(line.rstrip(), _LONGEST_LINE)
                for line in file.read().decode(errors="replace").splitlines()
                if line.strip()
            ]
            if lines:
                words += f"\n{title}:\n" + "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
    return words
