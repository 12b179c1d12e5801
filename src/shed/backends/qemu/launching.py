"""Starting the process of a VMM, in its jail, so that it outlives the server and is recorded before it runs."""

from __future__ import annotations

import array
import contextlib
import errno
import marshal
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from shed.backends.guard.mode import OPEN, Guard
from shed.backends.jail import plan
from shed.backends.jail.descriptors import AGENT, FILES, MONITOR, NETWORK, NIC
from shed.backends.jail.plan import Jail
from shed.backends.qemu import command, launchers, process
from shed.egress.network import netns
from shed.errors import BackendError
from shed.progress import Stop

_LAUNCH_TIMEOUT = 60.0
"""Seconds for each answer: the last one comes when QEMU has opened its memory."""
_MOST_ANSWER = 200
_REMEDIES = {
    b"N": "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, and on "
    "Ubuntu install shed's package, which brings an AppArmor profile, or sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container, run it with the right to make namespaces",
    b"J": "it needs Linux 5.12 or newer, and in a container the right to mount",
}


def launch(
    state_dir: Path,
    argv: list[str],
    host: command.Host,
    name: str,
    jail: Jail | None,
    *,
    files: Sequence[int] = (),
    memory: int | None = None,
    network: netns.Netns | None = None,
    guard: Guard = OPEN,
    prepare: Callable[[int], None] = lambda _: None,
    stop: Stop | None = None,
) -> process.Record:
    """Start QEMU in a session of its own, and in `jail`, and return its record, which is on disk before QEMU runs.

    `files` are open files that it gets, `memory` the one that it gets when it opens its memory.  `prepare` is given the
    process id of what will start it.  Who sets `stop`, in another thread, ends the wait for a process that does not
    come to it; nothing runs then.  Raises what these raise, and `BackendError` when the program cannot be executed, or
    not be held in its jail, or to what `guard` says.
    """
    stop = stop or Stop()
    process.clear(state_dir)
    process.begin_console(state_dir / command.CONSOLE)
    programs = plan.filters(jail, guard, memory=memory is not None) if jail else []
    orders = plan.Orders(
        command=argv,
        folder=str(state_dir),
        network=network is not None,
        supervised=guard.supervised,
        files=len(files),
        memory=memory is not None,
        filters=programs or [program for program in [guard.program] if program],
        listen=guard.supervised or memory is not None,
        jail=None if jail is None else plan.orders(jail, uid=os.geteuid(), gid=os.getegid()),
    )
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(_listener(state_dir, process.AGENT_SOCKET))
        monitor = stack.enter_context(_listener(state_dir, process.MONITOR_SOCKET))
        (state_dir / process.MESSAGES).unlink(missing_ok=True)
        messages = stack.enter_context(
            (state_dir / process.MESSAGES).open("ab")
        )  # it may be cut while the VMM writes to it
        descriptors = {1: messages.fileno(), AGENT: agent.fileno(), MONITOR: monitor.fileno()}
        if network is not None:
            descriptors |= dict(zip((NIC, *NETWORK), (network.card, *network.sockets), strict=True))
        descriptors |= dict(enumerate([*files, *([] if memory is None else [memory])], start=FILES))
        try:
            launcher = launchers.take(messages.fileno())
        except OSError as error:
            process.clear(state_dir)
            raise BackendError(f"cannot start a process for the VM of shed {name}: {error}") from error
        pid, ours = launcher.pid, stack.enter_context(launcher.socket)
        ours.settimeout(_LAUNCH_TIMEOUT)
        stop.add_callback(partial(_hang_up, ours))
        record = None
        try:
            stop.check()
            told = marshal.dumps({**orders, "descriptors": list(descriptors)})
            rights = array.array("i", descriptors.values())
            ours.sendmsg([len(told).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            ours.sendall(told)
            prepare(pid)
            ours.sendall(b"P")
            answer = _answer(ours, stop, name, argv)
            if not answer:
                raise ConnectionResetError(errno.ECONNRESET, "it has ended")
            vmm = int(answer[1:])
            record = process.Record(name, vmm, process.start_time(vmm), process.boot_id(), host.uuid, host.accel)
            process.save(state_dir, record)
            stop.check()
            ours.sendall(b"G")
            _answer(ours, stop, name, argv)  # its end of the socket, or ours
            os.waitpid(pid, 0)
        except BaseException as error:
            os.kill(pid, signal.SIGKILL)  # our child, not waited for yet: the number is still its own
            os.waitpid(pid, 0)
            if record is not None:
                with contextlib.suppress(BackendError):
                    process.send_signal(record, signal.SIGKILL)
            process.clear(state_dir)
            if isinstance(error, OSError):
                said = (state_dir / process.MESSAGES).read_text(errors="replace").strip()
                raise BackendError(f"cannot start a process for the VM of shed {name}: {said or error}") from error
            raise
    return record


def _answer(ours: socket.socket, stop: Stop, name: str, argv: list[str]) -> bytes:
    """Return what the launcher says.  Raises `BackendError` for what it could not do, and what `stop` raises."""
    answer = ours.recv(_MOST_ANSWER)
    stop.check()
    if not answer or answer.startswith(b"C"):
        return answer
    number, _, what = answer[1:].decode(errors="replace").partition(" ")
    reason = os.strerror(int(number)) + (f" ({what})" if what else "")
    match answer[:1]:
        case b"S":
            raise BackendError(
                f"the folder cannot be shared safely with shed {name}: {reason}",
                code="SHARE_UNGUARDED",
                hint="it needs Linux 5.9 with seccomp on the host; or share it to be read: --local-dir DIR:ro",
            )
        case b"E":
            raise BackendError(f"cannot execute {argv[0]}: {reason}")
    raise BackendError(
        f"the VM of shed {name} cannot be confined: {reason}", code="NO_JAIL", hint=_REMEDIES.get(answer[:1])
    )


def _hang_up(sock: socket.socket) -> None:
    """End the wait of another thread for what comes through `sock`, which it may have closed by now."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _listener(state_dir: Path, name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, process.reachable(state_dir, name) as path:
        listener.bind(path)
        (state_dir / name).chmod(0o600)
        listener.listen(8)
        yield listener
