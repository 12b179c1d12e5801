"""What a shed's network namespace is made with."""

from __future__ import annotations

import fcntl
import socket
import struct

import pytest

from shed.egress.network import netns

pytestmark = pytest.mark.root
_SIOCGIFTXQLEN = 0x8942


def test_packets_wait_for_the_card() -> None:
    """Two hundred downloads at once have a thousand under way; what does not fit is lost."""
    with netns.make() as network, socket.socket(fileno=network.sockets[0]) as inside:
        try:
            answer = fcntl.ioctl(inside, _SIOCGIFTXQLEN, struct.pack("16si20x", b"shed0", 0))
        finally:
            inside.detach()
    assert struct.unpack_from("16si", answer)[1] == 2000
