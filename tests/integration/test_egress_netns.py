"""What a shed's network namespace is made with."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess

import pytest

from shed.egress.network import netns

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
