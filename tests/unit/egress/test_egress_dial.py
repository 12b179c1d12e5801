"""Dialling a host of several addresses: the first one that answers is taken, and none is left open."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import pytest

from shed.egress.relay import dial as dialling
from shed.egress.relay.dial import dial

LOOPBACK = ipaddress.ip_address("127.0.0.1")
SIX = ipaddress.ip_address("::1")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Who answers, at a port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Who does not answer, at a port of 127.0.0.1: its queue is full."""
    with socket.socket() as made, socket.socket() as first, socket.socket() as second:
        made.bind(("127.0.0.1", 0))
        made.listen(0)
        for client in (first, second):
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.connect(made.getsockname())
        yield made


async def test_one_that_refuses_makes_way_at_once(listener: socket.socket) -> None:
    """An address where nobody listens, of another family, is passed over."""
    sock, address = await dial([SIX, LOOPBACK], listener.getsockname()[1], buffer=4096)
    with sock:
        assert address == LOOPBACK
        assert sock.getpeername() == listener.getsockname()


async def test_one_that_is_silent_holds_nobody_up(
    listener: socket.socket, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is tried while it may still answer."""
    port = silent.getsockname()[1]
    other = ipaddress.ip_address("127.0.0.2")
    monkeypatch.setattr(dialling, "_PATIENCE", 300.0)
    with socket.create_server(("127.0.0.2", port)):
        sock, address = await dial([LOOPBACK, other], port)
        sock.close()
    assert address == other


async def test_a_host_that_does_not_answer(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the address."""
    monkeypatch.setattr(dialling, "_PATIENCE", 0.01)
    with pytest.raises(OSError, match=r"127\.0\.0\.1 does not answer"):
        await dial([LOOPBACK], silent.getsockname()[1])
    with pytest.raises(OSError, match="it has no address"):
        await dial([], 80)


def test_the_families_take_turns() -> None:
    """So that one which leads nowhere costs a moment, however many addresses a host has there."""
    six = [ipaddress.ip_address(f"2001:db8::{number}") for number in range(1, 6)]
    turns = dialling._in_turns([*six, LOOPBACK])
    assert turns[:3] == [six[0], LOOPBACK, six[1]]
    assert len(turns) == 6


async def test_one_that_cannot_even_begin_makes_way(listener: socket.socket) -> None:
    """No route, or no such family on this host: that is told by the call itself."""
    port = listener.getsockname()[1]
    broadcast = ipaddress.ip_address("255.255.255.255")
    sock, address = await dial([broadcast, LOOPBACK], port)
    sock.close()
    assert address == LOOPBACK
    with pytest.raises(OSError, match=r"255\.255\.255\.255: "):
        await dial([broadcast], port)
