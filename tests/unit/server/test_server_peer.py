"""Who is at the other end of a TCP connection."""

import contextlib
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shed.server.peer import Peer, peer_of

CLIENT = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[2]))
client = socket.create_connection((sys.argv[1], int(sys.argv[3])))
client.recv(1)
"""


@contextlib.contextmanager
def connected(address: str, user: int) -> Iterator[tuple[socket.socket, int]]:
    """Yield a connection accepted from a process of `user`, and its process id."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        words = [sys.executable, "-c", CLIENT, address, str(user), str(listener.getsockname()[1])]
        with subprocess.Popen(words) as process, listener.accept()[0] as accepted:
            yield accepted, process.pid


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_user_of_this_machine(address: str) -> None:
    """Is known by name, by either family; 6aee119 sees the same address for all of them."""
    me = pwd.getpwuid(os.getuid()).pw_name
    with connected(address, os.getuid()) as (accepted, process):
        assert peer_of(accepted).key == f"user {me}"
        assert peer_of(accepted, {os.getpid(): "dev"}).key == f"user {me}"
        guest = peer_of(accepted, {1 << 30: "gone", os.getpid(): "dev", process: "web"})
        assert guest.key == "the guest of shed web"
        assert str(guest) == f"{guest.address} (the guest of shed web)"


@pytest.mark.root
def test_another_user() -> None:
    """Is told apart from this one."""
    with connected("127.0.0.1", 65534) as (accepted, _):
        assert peer_of(accepted).key == f"user {pwd.getpwuid(65534).pw_name}"


def test_one_that_has_left() -> None:
    """Is nobody, and no error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted = listener.accept()[0]
        with accepted:
            assert peer_of(accepted).key == "loopback"
        assert peer_of(accepted) == Peer("nobody", "nobody")
