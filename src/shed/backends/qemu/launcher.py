"""Becomes the VMM: a process of its own that waits for its parent's word and then executes the command it was given.

Run as ``python -I -S launcher.py CWD NAMESPACE COMMAND...`` with a socket to the parent as file descriptor 3.  The parent records this
process before the VMM starts, so that no VM can run unrecorded: when the parent dies first, its end of the socket closes and this ends too.

Over the socket: with NAMESPACE ``1``, a new user namespace is entered and ``U`` sent, so that the parent can write the maps, or ``N`` and
the error number when that is forbidden.  Then the parent sends ``G``.  A command that cannot be executed is answered with ``E`` and the
error number; success closes the socket.
"""

from __future__ import annotations

import os
import sys

_PARENT = 3
_PASSED = 6
"""Descriptors below this one are for the command: standard ones, the socket (closed on success), two listening sockets."""
_CLONE_NEWUSER = 0x10000000


def _unshare() -> None:
    if hasattr(os, "unshare"):  # Python 3.12
        os.unshare(_CLONE_NEWUSER)
        return
    import ctypes  # noqa: PLC0415  costs 15 ms

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")


def _main(cwd: str, namespace: str, *command: str) -> None:
    os.set_inheritable(_PARENT, False)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  few imports: this runs at every start
        if int(name) >= _PASSED:
            try:  # noqa: SIM105  as above
                os.close(int(name))
            except OSError:
                pass  # the one that listed the folder
    os.chdir(cwd)
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
        os.execv(command[0], command)
    except OSError as error:
        os.write(_PARENT, b"E%d" % (error.errno or 0))


if __name__ == "__main__":
    _main(*sys.argv[1:])
