"""Network namespaces for VMs, from the host's side; `shed.egress.network.netns_setup` says what is in one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from shed.egress.network.netns_setup import GATEWAY, PREFIX, SHED
from shed.errors import BackendError
from shed.inwaiting import Spare, end

_PROGRAM = Path(__file__).with_name("netns_setup.py")
_TIMEOUT = 30.0
_SAFE_FD = 64
_PARENT_FD = 3
_MOST_ANSWER = 4096
SOCKET = "netns.sock"
"""In a VM's folder: whoever connects is given the sockets of its network namespace."""
ADDRESS, DNS = f"{SHED}/{PREFIX}", GATEWAY
"""What a shed's card and its name service have."""

_REMEDIES = {
    "namespace": "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, user.max_net_namespaces above 0, "
    "and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0, or install shed's package, which brings a profile",
    "card": "load the module: sudo modprobe tun; and let users open it: sudo chmod 666 /dev/net/tun",
    "nft": "install it: sudo apt-get install nftables",
}


class NoNetworkError(BackendError):
    """The host does not let us make a network namespace: sheds have no network on it."""

    code = "NO_NETWORK"


@dataclass(slots=True)
class Netns:
    """The descriptors that keep a network namespace there: the card's other end, and the sockets for the relay."""

    card: int
    sockets: tuple[int, int, int]
    """The relay's listener, the name service's UDP socket, and its TCP listener."""

    def close(self) -> None:
        """Give the descriptors up."""
        for descriptor in (self.card, *self.sockets):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __enter__(self) -> Netns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Maker:
    """The process that makes one."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, _SAFE_FD)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, high, _PARENT_FD),
                ],
            )
        except OSError:
            self.socket.close()
            raise
        finally:
            os.close(high)

    def finish(self) -> Netns:
        """Return what it has made, or makes now.  Raises `NoNetworkError`."""
        self.socket.settimeout(_TIMEOUT)
        try:
            answer, descriptors, _, _ = socket.recv_fds(self.socket, _MOST_ANSWER, 4, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise NoNetworkError(f"the network of a shed cannot be made: {error}") from error
        finally:
            end(self)
        if len(descriptors) == 4:
            return Netns(descriptors[0], (descriptors[1], descriptors[2], descriptors[3]))
        raise _explained(answer)


_spare: Spare[_Maker] = Spare()


def make() -> Netns:
    """Make a network namespace; blocks for some hundredths of a second, unless one was prepared.

    Raises `NoNetworkError` with what to do.
    """
    if (prepared := _spare.swap(None)) is not None:
        with contextlib.suppress(NoNetworkError):  # it was tried a while ago
            return prepared.finish()
    try:
        maker = _Maker()
    except OSError as error:
        raise NoNetworkError(f"the network of a shed cannot be made: {error}") from error
    return maker.finish()


def prepare() -> None:
    """Have the next one made: that takes as long as a tenth of a warm start."""
    with contextlib.suppress(OSError):
        _spare.put(_Maker())


def take(folder: Path) -> list[socket.socket]:
    """Return the sockets of the network namespace of the VM in `folder`, from its keeper.  Raises `NoNetworkError`."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_TIMEOUT)
            client.connect(f"/proc/self/fd/{handle}/{SOCKET}")  # a socket's path has 108 bytes at most
            _, descriptors, _, _ = socket.recv_fds(client, 1, 4, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise NoNetworkError(f"the virtual machine in {folder} has no network: {error.strerror}") from error
    finally:
        os.close(handle)
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def _explained(answer: bytes) -> NoNetworkError:
    try:
        told = json.loads(answer)
        step, why = str(told["step"]), str(told["why"])
    except (ValueError, KeyError, TypeError):
        return NoNetworkError("the network of a shed cannot be made: its program has ended")
    remedy = _REMEDIES.get(step)
    if step == "card" and told.get("errno") not in {errno.ENOENT, errno.EACCES, errno.EPERM}:
        remedy = None
    return NoNetworkError(f"the network of a shed cannot be made ({step}): {why}", hint=remedy)
