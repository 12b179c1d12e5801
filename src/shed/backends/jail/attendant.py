"""What stays outside while a process goes to jail and becomes the VMM: gives it what it cannot take itself, and ends.

* The users of its user namespace, which only root outside can give.
* The machine's memory, if that is a file.  QEMU before 8.2 opens it to be written, though it maps it privately, and a
  VMM that could write it could change every other machine that was restored from the same template.  So it gets no file
  that it could open: the kernel asks us about that one call, and we answer with a descriptor, which for a restored
  machine is one to be read.
* The supervisor of shared folders gets the kernel's listener; see `shed.backends.guard`.
"""

from __future__ import annotations

import _socket
import os
import sys

from shed.backends.guard import asking
from shed.backends.jail import room
from shed.backends.jail.descriptors import MEMORY, PARENT, PASSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.backends.jail.plan import Orders

_GUARD = f"{__file__.removesuffix('/jail/attendant.py')}/guard"
_MEMORY = f"{MEMORY}\0".encode()
_EPIPE = 32


class Guard:
    """The supervisor, a process that is started before this one is held to anything."""

    def __init__(self) -> None:
        self._link, theirs = _socket.socketpair()
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), PARENT),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in range(PARENT + 1, PASSED)),
        ]
        words = [sys.executable, "-I", "-S", _GUARD]
        self.pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=actions)
        theirs.close()

    def take(self, listener: int, child: int) -> None:
        """Hand over the kernel's listener for `child`, and wait until it is in good hands.  Raises OSError."""
        rights = listener.to_bytes(4, sys.byteorder)
        self._link.sendmsg([b"%d" % child], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        if self._link.recv(1) != b"R":
            raise OSError(_EPIPE, "the guard has ended")
        self._link.close()


def attend(channel: _socket.socket, child: int, orders: Orders, memory: int | None, guard: Guard | None) -> None:
    """Serve the process `child` until it is the VMM and has all that it gets, or has ended.  Raises OSError."""
    channel.send(b"%d" % child)
    while True:
        message, rights, _, _ = channel.recvmsg(1, _socket.CMSG_SPACE(4))
        if message == b"U":
            given = orders["jail"]["given"] if orders["jail"] is not None else None
            assert given is not None
            room.write_maps(f"/proc/{child}", given)
            channel.send(b"M")
        elif message == b"L" and rights:
            listener = int.from_bytes(rights[0][2][:4], sys.byteorder)
            if memory is not None:
                _give(listener, child, memory)
            if guard is not None:
                guard.take(listener, child)
            return
        else:
            return


def _give(listener: int, child: int, memory: int) -> None:
    """Answer `child`, when it opens its memory, with the descriptor `memory`."""
    while (question := asking.receive(listener)) is not None:
        with open(f"/proc/{child}/mem", "rb", buffering=0) as seen:
            path = os.pread(seen.fileno(), len(_MEMORY), question.arguments[1])
        if path == _MEMORY:
            asking.answer(listener, question.identity, value=asking.give(listener, question.identity, memory))
            return
        asking.answer(listener, question.identity, go_on=True)  # it gets what there is in its jail
