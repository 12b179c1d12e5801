"""The process of a VMM: started so that it outlives the server, recorded before it runs, signalled only if ours.

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
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from shed.backends.base import Liveness
from shed.backends.guard.mode import OPEN, Guard
from shed.backends.qemu import command, userns
from shed.egress import netns
from shed.errors import BackendError
from shed.fsutil import atomic_write
from shed.progress import Stop

RECORD = "vm.json"
AGENT_SOCKET, MONITOR_SOCKET = "agent.sock", "qmp.sock"
_SOCKETS = (AGENT_SOCKET, MONITOR_SOCKET, netns.SOCKET)
MESSAGES = "qemu.log"
"""What the VMM itself printed, since its start."""
_LAUNCHER = Path(__file__).with_name("launcher.py")
_PROC = Path("/proc")
_START_TIME = 19
"""Index of `starttime` among the fields of /proc/PID/stat that follow the command's name; see proc_pid_stat(5)."""
_LAUNCH_TIMEOUT = 20.0
_LOOKS, _BETWEEN_LOOKS = 5, 0.001
_SAFE_FD = 64
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


class NamespaceForbiddenError(Exception):
    """User namespaces are not allowed on this host."""


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
        return Liveness.OURS if record.uuid.encode() in words or words == [b""] else Liveness.NOT_OURS
    except (ProcessLookupError, FileNotFoundError):
        return Liveness.NOT_OURS
    except (OSError, ValueError):
        return Liveness.UNKNOWN


def _words(pid: int) -> list[bytes]:
    """Return a process's command line.  The launcher's is QEMU's.

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
    _begin_console(target / command.CONSOLE)
    for file in (*_SOCKETS, MESSAGES, command.CONSOLE):
        (target / file).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # where VMs have no network there is none
            (target / file).hardlink_to(source / file)
    record = replace(record, name=name)
    _save(target, record)
    clear(source)
    return record


def _save(state_dir: Path, record: Record) -> None:
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


def launch(
    state_dir: Path,
    argv: list[str],
    host: command.Host,
    name: str,
    identity: userns.Identity,
    *,
    network: netns.Netns | None = None,
    guard: Guard = OPEN,
    prepare: Callable[[int], None] = lambda _: None,
    stop: Stop | None = None,
) -> Record:
    """Start QEMU in a session of its own and return its record, which is on disk before QEMU runs.

    `prepare` is given the process id before that, too.  Who sets `stop`, in another thread, ends the wait for a process
    that does not come to it; nothing runs then.  Raises what these raise, `NamespaceForbiddenError`, and `BackendError`
    when the program cannot be executed, or not be held to what `guard` says.
    """
    stop = stop or Stop()
    clear(state_dir)
    _begin_console(state_dir / command.CONSOLE)
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        ours.settimeout(_LAUNCH_TIMEOUT)
        agent = stack.enter_context(_listener(state_dir, AGENT_SOCKET))
        monitor = stack.enter_context(_listener(state_dir, MONITOR_SOCKET))
        (state_dir / MESSAGES).unlink(missing_ok=True)
        messages = stack.enter_context((state_dir / MESSAGES).open("ab"))  # it may be cut while the VMM writes to it
        try:
            switches = [
                "1" if identity.namespace else "0",
                guard.program.hex(),
                "1" if guard.supervised else "0",
                "1" if network is not None else "0",
            ]
            descriptors = {3: theirs.fileno(), 4: agent.fileno(), 5: monitor.fileno()}
            if network is not None:
                descriptors |= dict(zip((8, 9, 10, 11), (network.card, *network.sockets), strict=True))
            pid = _spawn(state_dir, [*switches, *argv], messages.fileno(), descriptors)
        except OSError as error:
            clear(state_dir)
            raise BackendError(f"cannot start a process for the VM of shed {name}: {error}") from error
        theirs.close()
        stop.add_callback(partial(_hang_up, ours))
        try:
            stop.check()
            prepare(pid)
            ours.sendall(b"P")
            if identity.namespace:
                answer = ours.recv(16)
                stop.check()
                if answer.startswith(b"N"):
                    raise NamespaceForbiddenError(os.strerror(int(answer[1:])))
                try:
                    userns.write_maps(pid, identity)
                except PermissionError as error:
                    raise NamespaceForbiddenError(str(error)) from error
            record = Record(name, pid, start_time(pid), boot_id(), host.uuid, host.accel)
            _save(state_dir, record)
            stop.check()
            ours.sendall(b"G")
            answer = ours.recv(16)
            stop.check()  # its end of the socket, or ours
            if answer.startswith(b"S"):
                raise BackendError(
                    f"the folder cannot be shared safely with shed {name}: {os.strerror(int(answer[1:]))}",
                    code="SHARE_UNGUARDED",
                    hint="it needs Linux 5.9 with seccomp on the host; or share it to be read: --local-dir DIR:ro",
                )
            if answer:
                raise BackendError(f"cannot execute {argv[0]}: {os.strerror(int(answer[1:]))}")
        except BaseException as error:
            os.kill(pid, signal.SIGKILL)  # our child, not waited for yet: the number is still its own
            os.waitpid(pid, 0)
            clear(state_dir)
            if isinstance(error, OSError):
                said = (state_dir / MESSAGES).read_text(errors="replace").strip()
                raise BackendError(f"cannot start a process for the VM of shed {name}: {said or error}") from error
            raise
    return record


def _hang_up(sock: socket.socket) -> None:
    """End the wait of another thread for what comes through `sock`, which it may have closed by now."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


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


def _begin_console(path: Path) -> None:
    """Start the console log anew; that of the VM before stays beside it, for whoever asks why it ended."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size:
            path.rename(path.with_suffix(".before.log"))
    path.touch(mode=0o600)


def _spawn(state_dir: Path, arguments: list[str], messages: int, descriptors: dict[int, int]) -> int:
    """Start the launcher; `messages` is its standard output and error, the keys of `descriptors` are their numbers."""
    wanted = {1: messages, 2: messages, **descriptors}
    high = {
        target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SAFE_FD) for target, fd in wanted.items()
    }  # none of them is in the way of another
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_DUP2, fd, target) for target, fd in high.items()),
    ]
    words = [sys.executable, "-I", "-S", str(_LAUNCHER), str(state_dir), *arguments]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    defaults = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    try:
        return os.posix_spawn(
            words[0], words, environment, file_actions=actions, setsid=True, setsigdef=defaults, setsigmask=[]
        )
    finally:
        for fd in high.values():
            os.close(fd)


@contextlib.contextmanager
def _listener(state_dir: Path, name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, reachable(state_dir, name) as path:
        listener.bind(path)
        (state_dir / name).chmod(0o600)
        listener.listen(8)
        yield listener
