"""Becomes the VMM: a process of its own that waits for its parent's word and then executes the command it was given.

Run as ``python -I -S launcher.py CWD NAMESPACE FILTER GUARD NETWORK COMMAND...`` with a socket to the parent as file
descriptor 3.  The parent records this process before the VMM starts, so that no VM can run unrecorded: when the parent
dies first, its end of the socket closes and this ends too.

Over the socket: the parent sends ``P`` when this process, and with it all that it starts, is held to its budget.  With
NAMESPACE ``1``, a new user namespace is entered and ``U`` sent, so that the parent can write the maps, or ``N`` and the
error number when that is forbidden. Then the parent sends ``G``.  A command that cannot be executed is answered with
``E`` and the error number; success closes the socket.

Whatever the guest says on its console comes through a pipe, descriptor 6 of the command, and is kept by a child of this
process, its keeper: the end of it, in ``console.log``.  So is what the command itself prints, which a guest can make it
do, in ``qemu.log``.  The keeper lives as long as the VMM, whether a server runs or not, and reads whatever comes, so
that the guest waits for nobody.

With NETWORK ``1``, descriptor 8 is the network card's, and the command gets it; 9 to 11 are the sockets of the
namespace that the card leads to (`shed.egress.netns_setup`).  The keeper holds those, and hands them to whoever
connects to ``netns.sock``, so that a relay that is started again finds them.

FILTER, if it is not empty, is a seccomp program in hexadecimal that holds the command, GUARD ``1`` when a supervisor is
started for it (see `shed.backends.guard`).  Where the kernel does not do that, ``S`` and the error number is the
answer, and nothing runs.
"""

from __future__ import annotations

import fcntl
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from _socket import socket

_PARENT = 3
_PASSED = 6
"""Descriptors below this one are for the command: standard ones, the socket (closed on success), two listening
sockets.
"""
_CONSOLE, _MESSAGES = 6, 7
_NIC, _NETWORK = 8, (9, 10, 11)
_GIVER_SOCKET = "netns.sock"
_LOGS = {_CONSOLE: "console.log", _MESSAGES: "qemu.log"}
_MOST_LOG, _KEPT_LOG = 8 << 20, 4 << 20
"""Bytes of a log from which on its beginning is cut off, and that are left then."""
_CHUNK = 64 * 1024
_SAFE_FD = 64
_PAUSE = 0.01
"""Seconds after each look into the pipe: a guest that writes byte by byte wakes the keeper a hundred times a second,
and no more.
"""
_CLONE_NEWUSER = 0x10000000


_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_PTRACER = 24, 38, 0x59616D61
_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_CAPABILITIES = 4, 27, 31
"""FSETID, MKNOD, SETFCAP: without them, not even root's VMM keeps set-id bits of what it writes to, or gives a file
capabilities.
"""
_GUARD = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guard")  # noqa: PTH100, PTH118, PTH120  few imports
"""Not in our own folder, whose package imports all of the backend: this one starts with each VM."""


def _libc() -> ctypes.CDLL:
    import ctypes  # noqa: PLC0415  costs 15 ms

    return ctypes.CDLL(None, use_errno=True)


def _unshare() -> None:
    if hasattr(os, "unshare"):  # Python 3.12
        os.unshare(_CLONE_NEWUSER)
        return
    libc = _libc()
    if libc.unshare(_CLONE_NEWUSER):
        raise _failed("unshare")


def _failed(what: str) -> OSError:
    import ctypes  # noqa: PLC0415  as above

    return OSError(ctypes.get_errno(), what)


class _Guard:
    """The supervisor, a process that is started before this one is held to anything."""

    def __init__(self) -> None:
        import _socket  # noqa: PLC0415  few need it

        self._link, theirs = _socket.socketpair()
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), _PARENT),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in range(_PARENT + 1, _PASSED)),
        ]
        words = [sys.executable, "-I", "-S", _GUARD, str(os.getpid())]
        self.pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=actions)
        theirs.close()

    def take(self, listener: int) -> None:
        """Hand over the kernel's listener, and wait until it is in good hands.  Raises OSError."""
        import _socket  # noqa: PLC0415  as above

        self._link.sendmsg([b"L"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))])
        os.close(listener)
        if self._link.recv(1) != b"R":
            raise OSError(32, "the guard has ended")
        self._link.close()


def _hold(program: bytes, guard: _Guard | None) -> None:
    """Have the kernel hold this process, and what it becomes, to `program`.  Raises OSError."""
    import ctypes  # noqa: PLC0415  as above

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = _libc()
    for capability in _CAPABILITIES:
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # without CAP_SETPCAP there are none to be had either
    if guard is not None:
        libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(guard.pid), 0, 0, 0)  # for Yama, where there is one
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failed("prctl")
    argument = ctypes.byref(Program(len(program) // 8, program))
    listener = libc.syscall(_SECCOMP, _SET_MODE_FILTER, 0 if guard is None else _NEW_LISTENER, argument)
    if listener < 0:
        raise _failed("seccomp")
    if guard is not None:
        guard.take(listener)


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
        for descriptor in range(_PASSED):  # above all the socket to the parent, which waits for its end
            os.dup2(nothing, descriptor, inheritable=False)
        with open("/proc/self/comm", "w") as name:
            name.write("shed-console")
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
                    if os.fstat(logs[source]).st_size > _MOST_LOG:
                        _cut(logs[source])
                except OSError:
                    pass  # most likely the disk is full: the guest goes on, its log when there is room again
            time.sleep(_PAUSE)
    finally:
        os._exit(0)


def _cut(log: int) -> None:
    """Keep the end of a log, in place: others have the file open, or know it by another name."""
    start, position = os.fstat(log).st_size - _KEPT_LOG, 0
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
        numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in _NETWORK)
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


def _start_keeper(*, with_network: bool) -> None:
    """Start the keeper, and leave the ways to it as the descriptors that the command gets.

    It holds a lock on the logs, which tells who waits for the last words of a VM that there may be more.
    """
    logs, sinks = {}, {}
    for target, name in _LOGS.items():
        log = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(log, fcntl.LOCK_EX)
        source, sinks[target] = os.pipe()
        logs[source] = log
    high = {target: fcntl.fcntl(sink, fcntl.F_DUPFD_CLOEXEC, _SAFE_FD) for target, sink in sinks.items()}
    for sink in sinks.values():
        os.close(sink)
    giver = _open_giver() if with_network else None
    if os.fork() == 0:
        for sink in (*high.values(), *((_NIC,) if with_network else ())):
            os.close(sink)
        _keep(logs, giver)
    for descriptor in (*logs, *logs.values(), *(_NETWORK if with_network else ())):
        os.close(descriptor)
    for target, sink in high.items():
        os.dup2(sink, target, inheritable=False)
        os.close(sink)


def _main(cwd: str, namespace: str, program: str, supervised: str, networked: str, *command: str) -> None:
    os.set_inheritable(_PARENT, False)
    kept = (_NIC, *_NETWORK) if networked == "1" else ()
    for descriptor in kept:
        os.set_inheritable(descriptor, False)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  few imports: this runs at every start
        if int(name) >= _PASSED and int(name) not in kept:
            try:  # noqa: SIM105  as above
                os.close(int(name))
            except OSError:
                pass  # the one that listed the folder
    os.chdir(cwd)
    if os.read(_PARENT, 1) != b"P":
        return
    _start_keeper(with_network=bool(kept))
    guard = _Guard() if supervised == "1" else None
    if namespace == "1":
        try:
            _unshare()
        except OSError as error:
            os.write(_PARENT, b"N%d" % (error.errno or 0))
            return
        os.write(_PARENT, b"U")
    if os.read(_PARENT, 1) != b"G":
        return
    try:
        if program:
            _hold(bytes.fromhex(program), guard)
    except OSError as error:
        os.write(_PARENT, b"S%d" % (error.errno or 0))
        return
    os.set_inheritable(_CONSOLE, True)
    if kept:
        os.set_inheritable(_NIC, True)
    for descriptor in (1, 2):
        os.dup2(_MESSAGES, descriptor)
    try:
        os.execv(command[0], command)
    except OSError as error:
        os.write(_PARENT, b"E%d" % (error.errno or 0))


if __name__ == "__main__":
    _main(*sys.argv[1:])
