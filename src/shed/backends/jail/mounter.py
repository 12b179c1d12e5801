"""Puts folders into the jail of a VMM that runs, and takes them away: a program that enters the jail's mounts and ends.

Run as ``python -I -S jail mount`` with its orders (`Orders`) on standard input, and the namespaces of the VMM as open
files.  What went wrong is answered with an error number and what it was; nothing is answered when all is well.

A folder is taken away in two steps.  First its mount is moved aside, to where the 9P server, which goes by names, does
not find it.  Then, when what the VMM had open there is closed (`shed.backends.guard.revoking`), it is unmounted in
earnest: the kernel refuses that as long as anybody has anything open in it.  So when it is done, the VMM has nothing
left of it.
"""

from __future__ import annotations

import _socket
import marshal
import os
import sys

from shed.backends.jail import room
from shed.linux import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Orders(TypedDict):
        """What is to be done."""

        do: str
        """``add``, ``aside`` or ``release``."""
        user: int
        """The VMM's user namespace, for the server of an ordinary user; else -1."""
        mounts: int
        """Its mount namespace."""
        source: str
        identity: tuple[int, int] | None
        """Device and number of that."""
        targets: list[bytes]
        """Where it is, or is to be; to be released: of mounts in each other, the inner ones first."""
        attributes: int
        aside: bytes
        """Where it is moved."""


def main() -> None:
    """Do what standard input says."""
    orders: Orders = marshal.loads(sys.stdin.buffer.read())  # noqa: S302  from our own server
    try:
        {"add": _add, "aside": _move_aside, "release": _release}[orders["do"]](orders)
    except OSError as error:
        os.write(1, f"{error.errno or 0} {error.filename or ''}".encode(errors="surrogateescape"))


def _add(orders: Orders) -> None:
    (target,) = orders["targets"]
    tree = _copied(orders)
    _enter(orders)
    room.make(os.fsdecode(target).lstrip("/"), is_folder=True)
    kernel.attach(tree, os.fsdecode(target))


def _move_aside(orders: Orders) -> None:
    (target,) = orders["targets"]
    _enter(orders)
    room.make(os.fsdecode(orders["aside"]).lstrip("/"), is_folder=True)
    kernel.move(os.fsdecode(target), os.fsdecode(orders["aside"]))
    place = target.strip(b"/")
    while place.count(b"/") > 1:  # what is above it, as far as there is nothing else; not the folder of all
        try:
            os.rmdir(place)  # noqa: PTH106  few imports
        except OSError:
            break
        place = place.rpartition(b"/")[0]


def _release(orders: Orders) -> None:
    _enter(orders)
    for target in orders["targets"]:
        kernel.unmount(os.fsdecode(target))
    for name in os.listdir("gone"):  # noqa: PTH208  as above
        os.rmdir(f"gone/{name}")  # noqa: PTH106  as above


def _copied(orders: Orders) -> int:
    """Return a copy of the mounts at a folder of the host.

    An ordinary user may make one in a user namespace alone, which is not that of the VMM: so another process does.
    """
    if orders["user"] < 0:
        return _copy(orders)
    ours, theirs = _socket.socketpair()
    if os.fork() == 0:
        try:
            kernel.unshare(kernel.NEWUSER | kernel.NEWNS)
            rights = _copy(orders).to_bytes(4, sys.byteorder)
            theirs.sendmsg([b"T"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        except OSError as error:
            theirs.send(b"%d" % (error.errno or 0))
        finally:
            os._exit(0)
    theirs.close()
    message, received, _, _ = ours.recvmsg(16, _socket.CMSG_SPACE(4))
    if not received:
        raise OSError(int(message or b"5"), "no copy", orders["source"])
    return int.from_bytes(received[0][2][:4], sys.byteorder)


def _copy(orders: Orders) -> int:
    tree = room.open_share(orders["source"], orders["identity"])
    kernel.set_attributes(tree, orders["attributes"])
    return tree


def _enter(orders: Orders) -> None:
    """Enter the mounts of the VMM; our working directory is its root, where we may make folders."""
    if orders["user"] >= 0:
        kernel.enter(orders["user"], kernel.NEWUSER)
    kernel.enter(orders["mounts"], kernel.NEWNS)
    os.chdir(kernel.writable_root())
