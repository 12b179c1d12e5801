"""What a shed's network namespace is made with."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess

import pytest

from shed.egress.network import netns
from shed.inwaiting import Spare

pytestmark = pytest.mark.root
_SIOCGSKNS = 0x894C
"""linux/sockios.h: the network namespace of a socket."""


def test_the_card_takes_many_downloads_at_once() -> None:
    """Two hundred have a thousand packets under way, what does not fit is lost; and each begins with what fits."""
    with netns.make() as network, socket.socket(fileno=os.dup(network.sockets[0])) as inside:
        namespace = fcntl.ioctl(inside, _SIOCGSKNS)
        try:
            link, route = (
                subprocess.run(
                    ["nsenter", f"--net=/proc/self/fd/{namespace}", "ip", "-d", *words],
                    capture_output=True, text=True, check=True, pass_fds=[namespace],
                ).stdout
                for words in (["link", "show", "shed0"], ["route"])
            )  # fmt: skip
        finally:
            os.close(namespace)
    assert " qlen 2000" in link
    assert "gso_max_size 32768" in link
    assert [line.split()[:3] for line in route.splitlines()] == [["unicast", "10.0.2.0/24", "dev"]]
    assert " initcwnd 45" in route


def test_the_next_one_is_made_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken once, and made by whoever needs it when the process that was to make it has died."""
    monkeypatch.setattr(netns, "_spare", Spare())
    spawned: list[int] = []

    class Noted(netns._Maker):
        def __init__(self) -> None:
            super().__init__()
            spawned.append(self.pid)

    monkeypatch.setattr(netns, "_Maker", Noted)
    netns.prepare()
    os.waitid(os.P_PID, spawned[0], os.WEXITED | os.WNOWAIT)
    with netns.make() as first, netns.make() as second:
        assert len(spawned) == 2
        assert not set(_inodes(first)) & set(_inodes(second))
    netns.prepare()
    os.kill(spawned[2], signal.SIGKILL)
    with netns.make() as third:
        assert len(_inodes(third)) == 3
    assert len(spawned) == 4


def _inodes(network: netns.Netns) -> list[int]:
    return [os.fstat(descriptor).st_ino for descriptor in network.sockets]
