"""The QEMU backend: what `shed.backends.base.Backend` asks for, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from shed.backends import mux
from shed.backends.base import Connection, LinkError, Liveness, Machine, Network, Probe, Template
from shed.backends.guard import mode
from shed.backends.qemu import accel, budget, command, groups, process, saving, tsc, userns
from shed.backends.qemu.templates import MEMORY, STATE, Limits, Templates
from shed.config.paths import Paths
from shed.errors import BackendError, ConflictError, UnavailableError
from shed.progress import Stop
from shed.run import missing_tool
from shed.threads import in_thread, stoppable
from shed.untrusted import told

log = logging.getLogger(__name__)
PROGRAM = "qemu-system-x86_64"
INSTALL_HINT = "sudo apt-get install qemu-system-x86"
_START_TIMEOUT = 30.0
"""Seconds until QEMU has set up the machine; it takes 0.2."""
_CLAIM_TIMEOUT = 3.0
"""Seconds for what takes a machine that waits 15 ms, or one that runs less."""
_TERM_SECONDS, _KILL_SECONDS = 2.0, 10.0
_HANG_UP = 0.2
"""Seconds until the agent has seen the host hang up, and waits for the next one."""
_SCRATCH = "scratch"
"""A file beside a spare; see `shed.backends.qemu.saving.exchange`."""
_NO_MEMORY = "Cannot allocate memory"
"""What QEMU says."""
_LAST_LINES = 15
_LAST_BYTES = 8192
_LONGEST_LINE = 500
"""Characters of a line that are shown."""


class QemuBackend:
    """VMs as QEMU processes; see `shed.backends.base.Backend`.

    `program` is QEMU's name or path.  The verdict on KVM is kept in `paths.data`.  `control_groups` is ``auto``,
    ``require`` or ``never``.
    """

    name = "qemu"
    network = Network("10.0.2.15/24", "10.0.2.2", "10.0.2.3")

    def __init__(
        self, paths: Paths, *, program: str = PROGRAM, limits: Limits | None = None, control_groups: str = "auto"
    ) -> None:
        self._cache = paths.data
        self._program = program
        self._control_groups = control_groups
        self._told: set[str] = set()
        """Why VMs run without a control group, as the log has it."""
        self._templates = Templates(paths.templates, limits or Limits())

    async def probe(self) -> Probe:
        """Say whether QEMU is here and how guests run; KVM that nobody tried yet is tried at the first start."""
        if platform.machine() != "x86_64":
            return Probe(False, "", f"this backend runs x86-64 guests on x86-64 hosts; this is {platform.machine()}")
        try:
            self._found()
            verdict = accel.known(self._cache)
        except UnavailableError as error:
            return Probe(False, "", f"{error}; {error.hint}")
        if verdict is None:
            return Probe(
                True, "kvm", f"{accel.KVM_DEVICE} opens; whether guests run with it is tried at the first start"
            )
        return Probe(True, verdict.accel, verdict.reason)

    async def start(self, machine: Machine, template: Template | None = None) -> tuple[str, ...]:
        """Start the VM process, detached from this one; see `shed.backends.base.Backend`."""
        host = await asyncio.to_thread(self._host, machine)
        if template is not None:
            host = replace(host, memory=template.path / MEMORY, restored=True)
        identity = userns.plan(machine.shares, uid=os.geteuid(), gid=os.getegid())
        state = self.liveness(machine.state_dir)
        if state is not Liveness.NOT_OURS:
            certainly = "runs already" if state is Liveness.OURS else "may be running: its process cannot be identified"
            raise ConflictError(f"the VM of shed {machine.name} {certainly}", code="SHED_ALREADY_RUNNING")
        try:
            record, warnings = await stoppable(partial(_launch, machine, host, identity, self._holding(machine, host)))
            await _came_up(machine.state_dir, record, template)
        except BaseException:  # a start that is given up half way leaves nothing running
            with contextlib.suppress(BackendError):
                await self.kill(machine.state_dir)
            raise
        return warnings

    def template(self, machine: Machine) -> Template | None:
        """Return what `machine` can be restored from; see `shed.backends.base.Backend`."""
        return self._templates.find(machine, self._host(machine))

    async def make_template(
        self, machine: Machine, rest: Callable[[Connection], Awaitable[None]], *, timeout: float
    ) -> Template:
        """Boot a machine like `machine` and save it at hello; see `shed.backends.base.Backend`."""
        host = await asyncio.to_thread(self._host, machine)
        with self._templates.lock():
            await self._sweep()
            plan = self._templates.begin(machine, host)
            try:
                await self._save(plan, replace(host, memory=plan.state_dir / MEMORY), rest, timeout=timeout)
                return await asyncio.to_thread(self._templates.publish, plan, host)
            finally:
                await self._sweep()

    async def _save(
        self, plan: Machine, host: command.Host, rest: Callable[[Connection], Awaitable[None]], *, timeout: float
    ) -> None:
        words, prepare = command.build(plan, host), self._holding(plan, host, template=True)
        record = await stoppable(
            lambda stop: process.launch(
                plan.state_dir, words, host, plan.name, userns.NOBODY, prepare=prepare, stop=stop
            )
        )
        await _came_up(plan.state_dir, record, None)
        link = await self.connect(plan.state_dir, timeout=timeout)
        try:
            await rest(link)
        finally:
            await link.close()
        await asyncio.sleep(_HANG_UP)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await saving.save(plan.state_dir, plan.state_dir / STATE, command.disk_names(plan)[:-1])
        except (TimeoutError, saving.MonitorError) as error:
            raise BackendError(
                f"the machine could not be saved: {str(error) or 'it takes too long'}", code="NOT_SAVED"
            ) from error
        await self.kill(plan.state_dir)

    async def make_spare(
        self, machine: Machine, template: Template, rehearse: Callable[[Connection], Awaitable[None]], *, timeout: float
    ) -> None:
        """Restore `machine`, prepare it, and let it stand still; see `shed.backends.base.Backend`."""
        (machine.state_dir / _SCRATCH).touch(mode=0o600)
        await self.start(machine, template)
        try:
            link = await self.connect(machine.state_dir, timeout=timeout)
            try:
                await rehearse(link)
            finally:
                await link.close()
            await asyncio.sleep(_HANG_UP)
            async with _telling(machine.name, _START_TIMEOUT):
                await saving.pause(machine.state_dir)
        except BaseException:
            await self.kill(machine.state_dir)
            raise

    async def claim(self, spare: Machine, machine: Machine) -> None:
        """Make the VM of `spare` that of `machine`; see `shed.backends.base.Backend`.

        It goes on before it changes its folder: who finds it in the new one, after we were killed, can configure it.
        """
        own = dict(list(zip(command.disk_names(machine), machine.disks, strict=True))[:-1])
        try:
            async with _telling(machine.name, _CLAIM_TIMEOUT):
                await saving.exchange(spare.state_dir, own, spare.state_dir / _SCRATCH)
            async with _telling(machine.name, None):
                await in_thread(process.move, spare.state_dir, machine.state_dir, machine.name)
        except BaseException:
            for folder in (spare.state_dir, machine.state_dir):
                with contextlib.suppress(BackendError):
                    await self.kill(folder)
            raise

    async def sweep_templates(self) -> None:
        """Remove what a server that was killed while it made a template has left; see `shed.backends.base.Backend`."""
        with contextlib.suppress(ConflictError), self._templates.lock():
            await self._sweep()

    async def _sweep(self) -> None:
        for folder in self._templates.unfinished():
            await self.kill(folder)
            await asyncio.to_thread(shutil.rmtree, folder)

    def is_whole(self, template: Template) -> bool:
        """Tell whether `template` is what was saved, to the last byte."""
        return self._templates.is_whole(template)

    def drop_template(self, template: Template) -> None:
        """Never restore from `template` again."""
        self._templates.drop(template)

    def _host(self, machine: Machine) -> command.Host:
        """Return what this host is to `machine`; blocks for seconds when KVM was not tried since the host's boot."""
        program = self._found()
        accelerator = accel.find(self._cache, program=program, kernel=machine.kernel).accel
        emulated = accelerator == "tcg"
        return command.Host(
            program,
            accelerator,
            str(uuid.uuid4()),
            tsc_khz=tsc.khz() if emulated else None,
            one_thread=emulated and machine.cpus > 1 and accel.one_thread(program),
        )

    def _holding(self, machine: Machine, host: command.Host, *, template: bool = False) -> Callable[[int], None]:
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
        """Return a link to the agent once it said hello; see `shed.backends.base.Backend`."""
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
            async with asyncio.timeout(_CLAIM_TIMEOUT):
                return not await saving.goes_on(state_dir)
        except (OSError, TimeoutError, saving.MonitorError) as error:
            log.warning("the VM in %s does not say how it is: %s", state_dir, str(error) or "no answer")
            return False

    async def waits_for_room(self, state_dir: Path, *, go_on: bool) -> bool:
        """Tell whether the VM stands still because the host's disk was full; see `shed.backends.base.Backend`."""
        async with _telling(state_dir.name, _CLAIM_TIMEOUT):
            return await saving.waits_for_room(state_dir, go_on=go_on)

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

    def _found(self) -> Path:
        found = shutil.which(self._program)
        if found is None:
            raise missing_tool(self._program, INSTALL_HINT)
        return Path(found)


def _launch(
    machine: Machine, host: command.Host, identity: userns.Identity, prepare: Callable[[int], None], stop: Stop
) -> tuple[process.Record, tuple[str, ...]]:
    """Start QEMU; where user namespaces are forbidden, without one, and with a warning."""
    try:
        return _launch_as(machine, host, identity, prepare, stop), ()
    except process.NamespaceForbiddenError as error:
        warning = (
            f"this host forbids user namespaces: files in {machine.shares[0].path} keep their owners' numbers "
            "in the shed"
        )
        log.warning("shed %s: %s (%s)", machine.name, warning, error)
    return _launch_as(machine, host, identity.without_namespace(), prepare, stop), (warning,)


def _launch_as(
    machine: Machine, host: command.Host, identity: userns.Identity, prepare: Callable[[int], None], stop: Stop
) -> process.Record:
    host = replace(host, run_as=identity.become)
    guard = mode.plan(machine.shares)
    words = command.build(machine, host)
    return process.launch(
        machine.state_dir, words, host, machine.name, identity, guard=guard, prepare=prepare, stop=stop
    )


async def _came_up(state_dir: Path, record: process.Record, template: Template | None) -> None:
    """Wait until the machine is set up, and is told what to go on from; a QEMU that ends closes the socket."""
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            await saving.resume(state_dir, None if template is None else template.path / STATE)
    except (OSError, TimeoutError, saving.MonitorError) as error:
        await process.console_settled(state_dir)
        words = _last_words(state_dir)
        hint = "free some memory of this machine, or ask for less: --memory of create" if _NO_MEMORY in words else None
        raise BackendError(
            f"the VM of shed {record.name} did not start{words}", code="VM_START_FAILED", hint=hint
        ) from error


@contextlib.asynccontextmanager
async def _telling(name: str, seconds: float | None) -> AsyncIterator[None]:
    """Turn what goes wrong when a VM is told what to do, or takes too long, into a `BackendError`."""
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
