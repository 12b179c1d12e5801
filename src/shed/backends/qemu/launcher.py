"""Becomes the VMM: a process of its own that waits for its parent's word and then executes the command it was given.

Run as ``python -I -S launcher.py CWD NAMESPACE FILTER GUARD COMMAND...`` with a socket to the parent as file descriptor 3.  The parent
records this process before the VMM starts, so that no VM can run unrecorded: when the parent dies first, its end of the socket closes and
this ends too.

Over the socket: the parent sends ``P`` when this process, and with it all that it starts, is held to its budget.  With NAMESPACE ``1``, a
new user namespace is entered and ``U`` sent, so that the parent can write the maps, or ``N`` and the error number when that is forbidden.
Then the parent sends ``G``.  A command that cannot be executed is answered with ``E`` and the error number; success closes the socket.

FILTER, if it is not empty, is a seccomp program in hexadecimal that holds the command, and GUARD the mode of the supervisor that is started
for it (see `shed.backends.qemu.guard`).  Where the kernel does not do that, ``S`` and the error number is the answer, and nothing runs.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes

_PARENT = 3
_PASSED = 6
"""Descriptors below this one are for the command: standard ones, the socket (closed on success), two listening sockets."""
_CLONE_NEWUSER = 0x10000000


_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_PTRACER = 24, 38, 0x59616D61
_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_CAPABILITIES = 4, 27, 31
"""FSETID, MKNOD, SETFCAP: without them, not even root's VMM keeps set-id bits of what it writes to, or gives a file capabilities."""
_GUARD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard")  # noqa: PTH100, PTH118, PTH120  few imports, as below


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

    def __init__(self, mode: str) -> None:
        import _socket  # noqa: PLC0415  few need it

        self._link, theirs = _socket.socketpair()
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), _PARENT), *((os.POSIX_SPAWN_CLOSE, fd) for fd in range(_PARENT + 1, _PASSED))]
        words = [sys.executable, "-I", "-S", _GUARD, str(os.getpid()), mode]
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


def _main(cwd: str, namespace: str, program: str, mode: str, *command: str) -> None:
    os.set_inheritable(_PARENT, False)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  few imports: this runs at every start
        if int(name) >= _PASSED:
            try:  # noqa: SIM105  as above
                os.close(int(name))
            except OSError:
                pass  # the one that listed the folder
    os.chdir(cwd)
    if os.read(_PARENT, 1) != b"P":
        return
    guard = _Guard(mode) if mode else None
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
    try:
        os.execv(command[0], command)
    except OSError as error:
        os.write(_PARENT, b"E%d" % (error.errno or 0))


if __name__ == "__main__":
    _main(*sys.argv[1:])
