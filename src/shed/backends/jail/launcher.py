"""Becomes the VMM: a process that waits for its parent's word, goes to jail, and executes the command it was given.

Run as ``python -I -S jail`` with a socket to the parent as file descriptor 3.  The parent records the
process before the VMM starts, so that no VM can run unrecorded: when the parent dies first, its end of the socket
closes and this ends too.

Over the socket: the parent sends its orders (`shed.backends.jail.plan.Orders`) with descriptors, and ``P`` when this
process, and with it all that it starts, is held to its budget.  The answer is ``C`` and the process id of a child that
will be the VMM.  Then the parent sends ``G``.  What cannot be done is answered with a letter, an error number and what
it was: ``N`` when the namespaces are forbidden, ``J`` when another part of the jail cannot be had, ``S`` when the
kernel does not hold the process or ask its supervisor, ``E`` when the command cannot be executed.  Nothing runs then.
Success closes the socket: both the child and this process have let go of it.

The large modules of the standard library are left alone here: this runs at every start.
"""

from __future__ import annotations

import _socket
import fcntl
import marshal
import os
import sys

from shed.backends.jail import attendant, keeper, room
from shed.backends.jail.descriptors import CONSOLE, FILES, MESSAGES, NETWORK, NIC, PARENT, PASSED, SAFE_FD
from shed.linux import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.backends.jail.plan import Orders

_MOST_ANSWER = 150
_MOST_PASSED = 253
"""SCM_MAX_FD of the kernel: descriptors in one message."""


def main() -> None:
    """Run a command as the parent says.  Return when it has gone before it said anything."""
    os.set_inheritable(PARENT, False)
    descriptors = []
    parent = _socket.socket(fileno=PARENT)
    size, rights, _, _ = parent.recvmsg(4, _socket.CMSG_SPACE(_MOST_PASSED * 4))
    parent.detach()
    if len(size) < 4:
        return
    for _, _, data in rights:
        descriptors += [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data), 4)]
    orders: Orders = marshal.loads(_read(int.from_bytes(size, "big")))  # noqa: S302  from our own server
    _place(descriptors, orders["descriptors"])
    command = orders["command"]
    files = range(FILES, FILES + orders["files"])
    memory = FILES + orders["files"] if orders["memory"] else None
    _close_others({*files, *((NIC, *NETWORK) if orders["network"] else ()), *(() if memory is None else (memory,))})
    os.chdir(orders["folder"])
    if _read(1) != b"P":
        return
    keeper.start(with_network=orders["network"])
    guard = attendant.Guard() if orders["supervised"] else None
    ours, theirs = _socket.socketpair()
    letter = "N"
    try:
        if orders["jail"] is not None:
            room.enter_first(orders["jail"])
        child = os.fork()
        letter = "J"
        if child:
            theirs.close()
            os.write(PARENT, b"C%d" % child)
            attendant.attend(ours, child, orders, memory, guard)
            return
        ours.close()
        os.setsid()
        number = int(theirs.recv(16))
        if _read(1) != b"G":
            return
        if orders["jail"] is not None:
            room.enter(orders["jail"], orders["folder"], number, theirs)
        elif guard is not None:
            kernel.allow_tracer(guard.pid)  # for Yama, where there is one
        kernel.no_new_privileges()
        if orders["jail"] is not None:
            room.lock(orders["jail"])
        letter = "S"
        _hold(orders, theirs)
        letter = "E"
        for descriptor in (CONSOLE, *files, *((NIC,) if orders["network"] else ())):
            os.set_inheritable(descriptor, True)
        for descriptor in (1, 2):
            os.dup2(MESSAGES, descriptor)
        os.execv(command[0], command)
    except OSError as error:
        os.write(PARENT, f"{letter}{error.errno or 0} {error.filename or ''}".encode()[:_MOST_ANSWER])
    except Exception as error:
        os.write(PARENT, f"J0 {error!r}".encode()[:_MOST_ANSWER])  # silence would mean that all is well
        raise


def _hold(orders: Orders, attendant_socket: _socket.socket) -> None:
    """Have the kernel hold this process, and what it becomes, to the seccomp programs of `orders`."""
    *others, last = orders["filters"] or [b""]
    for program in others:
        kernel.hold(program)
    if last:
        listener = kernel.hold(last, listen=orders["listen"])
        if orders["listen"]:
            rights = listener.to_bytes(4, sys.byteorder)
            attendant_socket.sendmsg([b"L"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
            os.close(listener)


def _place(descriptors: list[int], numbers: list[int]) -> None:
    """Give descriptors their numbers; that of number 1 becomes our standard error, too."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, SAFE_FD) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)  # none is in the way of another
    for descriptor, number in zip(high, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.dup2(1, 2)


def _close_others(kept: set[int]) -> None:
    """Close what we have inherited by mistake, and let no program that we start have what we keep."""
    for descriptor in kept:
        os.set_inheritable(descriptor, False)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  few imports
        if int(name) >= PASSED and int(name) not in kept:
            try:  # noqa: SIM105  as above
                os.close(int(name))
            except OSError:
                pass  # the one that listed the folder


def _read(size: int) -> bytes:
    """Return `size` bytes from the parent, fewer when it has gone."""
    data = b""
    while len(data) < size and (part := os.read(PARENT, size - len(data))):
        data += part
    return data
