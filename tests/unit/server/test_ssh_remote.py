"""What a guest says of connections that came to it, for a client of the SSH front: it may say anything."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, NoReturn, cast

import pytest

from shed.backends.base import Stream
from shed.errors import BackendError
from shed.server.ssh.client import Client
from shed.server.ssh.limits import MOST_ARRIVING
from shed.server.ssh.remote import GuestListener, listen


class Told:
    """A stream on which the guest says `text`, and then nothing more until it is closed."""

    def __init__(self, text: str) -> None:
        self._rest = text.encode()
        self.silent, self.closed = asyncio.Event(), asyncio.Event()

    async def read(self, size: int = 65536) -> bytes:
        if not self._rest:
            self.silent.set()
            await self.closed.wait()
            return b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        self.closed.set()


class Somebody:
    """Stands for a client, and for the manager: each connection from the guest is accepted, and then goes on for
    ever.
    """

    name = "dev"

    def __init__(self, address: str = "1") -> None:
        self.manager = self.guests = self
        self.connection = self
        self.arriving = asyncio.Semaphore(MOST_ARRIVING)
        self.tasks: list[asyncio.Task[None]] = []
        self.address = address
        self.stream = Told("")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def shed(self) -> str:
        return self.name

    def is_closed(self) -> bool:
        return False

    async def open_listener(self, name: str, line: str, *, autostart: bool) -> tuple[Told, str]:
        if line.startswith("ACCEPT"):
            await asyncio.Event().wait()
        return self.stream, self.address


async def _nothing(*_: object) -> NoReturn:
    raise AssertionError("no connection was accepted")


async def test_more_connections_than_are_carried() -> None:
    """Wait in the guest: there is a task for each that is carried, and no more; 6aee119 makes one for each line."""

    async def scenario() -> int:
        somebody = Somebody()
        stream = Told("".join(f"{number} 127.0.0.1 9\n" for number in range(MOST_ARRIVING + 500)))
        GuestListener(cast(Client, somebody), cast(Stream, stream), "1", _nothing)
        while not somebody.arriving.locked():
            await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        for task in somebody.tasks:
            task.cancel()
        return len(somebody.tasks)

    assert await scenario() == MOST_ARRIVING + 1


@pytest.mark.parametrize(
    "text", ["x\n", "1 2\n", "1 127.0.0.1 x\n", "1 127.0.0.1 9 9\n", "-1\n", "1 a;b 9\n", "\x1b[2J\n", "9" * 500 + "\n"]
)
async def test_what_is_no_connection(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Ends the listening with one line of the log; 6aee119 logs a traceback, or accepts it."""
    with caplog.at_level(logging.INFO):
        somebody, ended = Somebody(), asyncio.Event()
        listener = GuestListener(cast(Client, somebody), cast(Stream, Told(text)), "1", _nothing)
        listener.when_closed(ended.set)
        await asyncio.wait_for(ended.wait(), 30)
        assert len(somebody.tasks) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the agent of 'dev' tells of a connection that is none"
    ]


@pytest.mark.parametrize("address", ["", "x", "99999999", "1 2", "\x1b[2J"])
async def test_a_port_that_is_none(address: str) -> None:
    """Is an error, and the stream is closed."""
    somebody = Somebody(address)
    with pytest.raises(BackendError, match="is no port"):
        await listen(cast(Client, somebody), "tcp 0", _nothing)
    assert somebody.stream.closed.is_set()
