"""The process of a VMM: recorded, found again, signalled only if it is ours.

The record is ``vm.json`` in the state folder: process id, the process's start time, this host boot's id, and the UUID
on its command line. All four must fit; a process id alone says nothing, because numbers are used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from shed.backends.base import Liveness
from shed.backends.qemu import command, launchers
from shed.egress.network import netns
from shed.errors import BackendError
from shed.fsutil import atomic_write

RECORD = "vm.json"
AGENT_SOCKET, MONITOR_SOCKET = "agent.sock", "qmp.sock"
_SOCKETS = (AGENT_SOCKET, MONITOR_SOCKET, netns.SOCKET)
MESSAGES = "qemu.log"
"""What the VMM itself printed, since its start."""
_PROC = Path("/proc")
_START_TIME = 19
"""Index of `starttime` among the fields of /proc/PID/stat that follow the command's name; see proc_pid_stat(5)."""
_LAUNCHER = [*map(os.fsencode, launchers.command_line()), b""]
"""The words of what is about to become QEMU."""
_LOOKS, _BETWEEN_LOOKS = 5, 0.001
_SETTLING, _BETWEEN_TRIES = 100, 0.01


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a VM's process."""

    name: str
    pid: int
    start_time: int
    """Clock ticks after the host's boot."""
    boot_id: str
    uuid: str
    accel: str


class BrokenRecordError(Exception):
    """The record is there and makes no sense."""


def boot_id() -> str:
    """Return the id of this host's boot."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks after boot.

    Raises ProcessLookupError for no process, or one that ended (zombie).
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in {b"Z", b"X"}:
        raise ProcessLookupError(pid)
    return int(fields[_START_TIME])


def load(state_dir: Path) -> Record | None:
    """Return the record in `state_dir`, None when there is none.  Raises `BrokenRecordError`."""
    try:
        text = (state_dir / RECORD).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BrokenRecordError(str(error)) from error
    try:
        found = json.loads(text)
        values = {key: found[key] for key in Record.__slots__}
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenRecordError(f"{state_dir / RECORD} is damaged: {error}") from error
    numbers = {"pid", "start_time"}
    for key, value in values.items():
        if type(value) is not (int if key in numbers else str):
            raise BrokenRecordError(f"{state_dir / RECORD} is damaged: {key} is {value!r}")
    return Record(**values)


def identify(record: Record) -> Liveness:
    """Say whether the recorded process is alive and ours."""
    try:
        if record.boot_id != boot_id() or start_time(record.pid) != record.start_time:
            return Liveness.NOT_OURS
        words = _words(record.pid)
        ours = record.uuid.encode() in words or words in ([b""], _LAUNCHER)
        return Liveness.OURS if ours else Liveness.NOT_OURS
    except (ProcessLookupError, FileNotFoundError):
        return Liveness.NOT_OURS
    except (OSError, ValueError):
        return Liveness.UNKNOWN


def _words(pid: int) -> list[bytes]:
    """Return a process's command line.

    In the moment in which it becomes QEMU, or QEMU ends, there is none.
    """
    for _ in range(_LOOKS):
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        if words != [b""]:
            break
        time.sleep(_BETWEEN_LOOKS)
    return words


def liveness(state_dir: Path) -> Liveness:
    """Say whether the VM recorded in `state_dir` is alive and ours."""
    try:
        record = load(state_dir)
    except BrokenRecordError:
        return Liveness.UNKNOWN
    if record is None:
        return Liveness.NOT_OURS
    answer = identify(record)
    if answer is Liveness.NOT_OURS:
        _reap(record.pid)
    return answer


def clear(state_dir: Path) -> None:
    """Remove the record and the sockets of a VM that is gone."""
    for name in (RECORD, *_SOCKETS):
        (state_dir / name).unlink(missing_ok=True)


def move(source: Path, target: Path, name: str) -> Record:
    """Have the VM of the folder `source` be that of `target`, called `name`, from now on.

    Raises `BrokenRecordError`, `OSError`, `StorageError`.  Wherever this is cut short, the record is in `source`, in
    both, or in `target`.
    """
    record = load(source)
    if record is None:
        raise BrokenRecordError(f"no VM runs in {source}")
    clear(target)
    begin_console(target / command.CONSOLE)
    for file in (*_SOCKETS, MESSAGES, command.CONSOLE):
        (target / file).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # where VMs have no network there is none
            (target / file).hardlink_to(source / file)
    record = replace(record, name=name)
    save(target, record)
    clear(source)
    return record


def save(state_dir: Path, record: Record) -> None:
    """Write the record of a VM.  Raises `StorageError`, `OSError`."""
    atomic_write(state_dir / RECORD, json.dumps(asdict(record), indent=1) + "\n", mode=0o600)


@contextlib.contextmanager
def reachable(state_dir: Path, name: str) -> Iterator[str]:
    """Yield a short path to a socket in `state_dir`.

    The path of a socket has at most 108 bytes, and that of the directory may be longer.
    """
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def exit_event(record: Record) -> Iterator[asyncio.Future[None]]:
    """Yield a future that is done when the recorded process is gone.  Nothing is polled.

    Raises `BackendError` when it cannot be told.
    """
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    with _handle(record) as handle:
        if handle is None:
            gone.set_result(None)
            yield gone
            return

        def ended() -> None:
            loop.remove_reader(handle)
            _reap(record.pid)
            if not gone.done():
                gone.set_result(None)

        loop.add_reader(handle, ended)
        try:
            yield gone
        finally:
            loop.remove_reader(handle)


async def wait_exit(record: Record, *, timeout: float) -> bool:
    """Wait until the recorded process is gone; False when it still runs after `timeout` seconds."""
    with exit_event(record) as gone:
        await asyncio.wait([gone], timeout=timeout)
        return gone.done()


def send_signal(record: Record, number: signal.Signals) -> None:
    """Signal the recorded process, unless it is gone.

    Raises `BackendError` when it cannot be told whether it is ours.
    """
    with _handle(record) as handle:
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)


@contextlib.contextmanager
def _handle(record: Record) -> Iterator[int | None]:
    """Yield a pidfd of the recorded process, None when it is gone.

    The identity is checked after the pidfd is there: whatever is done with it then hits that process or none.
    """
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        answer = identify(record)
        if answer is Liveness.UNKNOWN:
            raise BackendError(
                f"cannot tell whether process {record.pid} is the VM of shed {record.name}",
                code="VM_UNIDENTIFIED",
                hint="nothing was signalled; run the server as the user who started this shed",
            )
        if answer is Liveness.NOT_OURS:
            _reap(record.pid)
        yield handle if answer is Liveness.OURS else None
    finally:
        os.close(handle)


def _reap(pid: int) -> None:
    """Take the exit status of a child of ours that has ended; does nothing for other processes."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


async def console_settled(state_dir: Path) -> None:
    """Wait until the console log has all that a VM said that has ended: its keeper lets go of it then.

    Takes a second at most.
    """
    with contextlib.suppress(OSError), (state_dir / command.CONSOLE).open("rb") as log:
        for _ in range(_SETTLING):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            await asyncio.sleep(_BETWEEN_TRIES)


def begin_console(path: Path) -> None:
    """Start the console log anew; that of the VM before stays beside it, for whoever asks why it ended."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size:
            path.rename(path.with_suffix(".before.log"))
    path.touch(mode=0o600)
