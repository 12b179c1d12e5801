"""The keeper: a process beside each VMM that keeps what comes from it, and lives as long as it does.

Whatever the guest says on its console comes through a pipe, descriptor 6 of the VMM; the end of it is kept in
``console.log``.  So is what the VMM itself prints, which a guest can make it do, in ``qemu.log``.  The keeper lives
whether a server runs or not, and reads whatever comes, so that the guest waits for nobody.

It also holds the sockets of the VM's network namespace, and hands them to whoever connects to ``netns.sock``, so that a
relay that is started again finds them.
"""

from __future__ import annotations

import fcntl
import os
import sys

from shed.backends.jail.descriptors import CONSOLE, MESSAGES, NETWORK, NIC, PASSED, SAFE_FD
from shed.linux import kernel, landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

_GIVER_SOCKET = "netns.sock"
_LOGS = {CONSOLE: "console.log", MESSAGES: "qemu.log"}
MOST_LOG, KEPT_LOG = 8 << 20, 4 << 20
"""Bytes of a log from which on its beginning is cut off, and that are left then."""
_CHUNK = 64 * 1024
_PAUSE = 0.01
"""Seconds after each look into the pipe: a guest that writes byte by byte wakes the keeper a hundred times a second,
and no more.
"""


def start(*, with_network: bool) -> None:
    """Start the keeper, and leave the ways to it as the descriptors that the command gets.

    It holds a lock on the logs, which tells who waits for the last words of a VM that there may be more.
    """
    logs, sinks = {}, {}
    for target, name in _LOGS.items():
        log = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(log, fcntl.LOCK_EX)
        source, sinks[target] = os.pipe()
        logs[source] = log
    high = {target: fcntl.fcntl(sink, fcntl.F_DUPFD_CLOEXEC, SAFE_FD) for target, sink in sinks.items()}
    for sink in sinks.values():
        os.close(sink)
    giver = _open_giver() if with_network else None
    if os.fork() == 0:
        for sink in (*high.values(), *((NIC,) if with_network else ())):
            os.close(sink)
        _keep(logs, giver)
    for descriptor in (*logs, *logs.values(), *(NETWORK if with_network else ())):
        os.close(descriptor)
    for target, sink in high.items():
        os.dup2(sink, target, inheritable=False)
        os.close(sink)


def _keep(logs: dict[int, int], giver: socket | None) -> None:
    """Append what comes from each pipe to its log, and keep that short, until the VMM has ended; never returns.

    Meanwhile hand out the network's sockets by the listener `giver`.
    """
    try:
        import select  # noqa: PLC0415  only the keeper needs these
        import time  # noqa: PLC0415

        ends = {
            source: os.open(f"/proc/self/fd/{log}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            for source, log in logs.items()
        }
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in range(PASSED):  # above all the socket to the parent, which waits for its end
            os.dup2(nothing, descriptor, inheritable=False)
        with open("/proc/self/comm", "w") as name:
            name.write("shed-console")
        try:  # noqa: SIM105  few imports
            _confine()
        except OSError:
            pass  # a host that does not let it; the VMM's own jail is what counts
        poll = select.poll()
        for source in ends:
            poll.register(source, select.POLLIN)
        if giver is not None:
            poll.register(giver.fileno(), select.POLLIN)
        while ends:
            for source, _ in poll.poll():
                if giver is not None and source == giver.fileno():
                    _hand_out(giver)
                    continue
                data = os.read(source, _CHUNK)
                if not data:
                    poll.unregister(source)
                    del ends[source]
                    continue
                try:
                    os.write(ends[source], data)
                    if os.fstat(logs[source]).st_size > MOST_LOG:
                        _cut(logs[source])
                except OSError:
                    pass  # most likely the disk is full: the guest goes on, its log when there is room again
            time.sleep(_PAUSE)
    finally:
        os._exit(0)


def _confine() -> None:
    """Keep no right but to what is open: no capability, and no file where there is Landlock."""
    if os.geteuid() == 0:
        kernel.drop_bounding_set()
    kernel.drop_capabilities()
    kernel.no_new_privileges()
    landlock.restrict([], [], connects=False)


def _cut(log: int) -> None:
    """Keep the end of a log, in place: others have the file open, or know it by another name."""
    start, position = os.fstat(log).st_size - KEPT_LOG, 0
    while data := os.pread(log, _CHUNK, start + position):
        position += os.pwrite(log, data, position)
    os.truncate(log, position)


def _hand_out(giver: socket) -> None:
    """Give the network's sockets to whoever has connected: only our own user gets that far."""
    import _socket  # noqa: PLC0415  few keepers need it

    try:
        descriptor, _ = giver._accept()  # type: ignore[attr-defined]  # noqa: SLF001  what `socket.socket.accept` uses
        client = _socket.socket(fileno=descriptor)
        client.settimeout(1)
        numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in NETWORK)
        client.sendmsg([b"R"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
        client.close()
    except OSError:
        pass  # it has left


def _open_giver() -> socket:
    """Return the listener by which the network's sockets are handed out."""
    import _socket  # noqa: PLC0415  as above

    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:  # noqa: SIM105  few imports
        os.unlink(_GIVER_SOCKET)  # noqa: PTH108
    except FileNotFoundError:
        pass
    mask = os.umask(0o177)
    listener.bind(_GIVER_SOCKET)
    os.umask(mask)
    listener.listen(4)
    return listener
