"""The host's side of the multiplexer, against the guest's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shed.backends import mux
from shed.backends.base import LinkError
from shed.backends.mux import MuxConnection, ProtocolMismatchError
from shed.backends.stream import MuxStream, StreamResetError
from shed.guest import protocol
from support.guests.guest_port import COUNT, ECHO, SINK, SOURCE, guest, run


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with guest(tmp_path / "agent.sock"):
        yield str(tmp_path / "agent.sock")


@contextlib.asynccontextmanager
async def linked(path: str) -> AsyncIterator[MuxConnection]:
    link = await mux.connect(path)
    try:
        yield link
    finally:
        await link.close()


async def read_all(stream: MuxStream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


@pytest.mark.parametrize(
    "size", [0, 1, 65535, 65536, 65537, protocol.INITIAL_CREDIT, protocol.INITIAL_CREDIT + 1, 3_000_000]
)
def test_bytes_come_back_as_they_were_sent(path: str, size: int) -> None:
    """Data of every size around a frame and a window survives both ways, and both ends end the stream."""
    data = os.urandom(size)

    async def work() -> None:
        async with linked(path) as link:
            assert link.hello["agent"] == "test"
            stream = await link.open(ECHO)
            reading = asyncio.create_task(read_all(stream))
            await stream.write(data)
            await stream.write_eof()
            assert await reading == data
            assert not link._streams

    run(work)


def test_many_streams_share_the_link_fairly(path: str) -> None:
    """A stream that takes all it can get does not hold up a short question on another."""

    async def work() -> None:
        async with linked(path) as link:
            greedy = await link.open(SOURCE)

            async def swallow() -> None:
                with contextlib.suppress(StreamResetError):
                    while await greedy.read():
                        pass

            swallowing = asyncio.create_task(swallow())
            for index in range(20):
                stream = await link.open(ECHO)
                await stream.write(b"%d" % index)
                assert await stream.read() == b"%d" % index
                stream.close()
            greedy.close()
            await swallowing

    run(work)


def test_a_reader_that_does_not_read_stops_the_guest(path: str) -> None:
    """The guest sends no more than the window; memory stays bounded.  Reading sets it going, with a larger one."""

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(SOURCE)
            other = await link.open(ECHO)
            for _ in range(50):  # enough turns for the guest to send all it may
                await other.write(b"x")
                await other.read()
            assert sum(map(len, stream._chunks)) <= protocol.INITIAL_CREDIT
            taken = 0
            while taken < 4 * protocol.GROWN_CREDIT:
                taken += len(await stream.read(1000))
            for _ in range(50):
                await other.write(b"x")
                await other.read()
            assert protocol.INITIAL_CREDIT < sum(map(len, stream._chunks)) <= protocol.GROWN_CREDIT
            stream.close()

    run(work)


def test_a_guest_that_does_not_read_stops_the_writer(path: str) -> None:
    """A writer waits once the window is used up, and a reset wakes it with an error."""

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(SINK)
            await stream.write(bytes(protocol.INITIAL_CREDIT))
            writing = asyncio.create_task(stream.write(b"one byte too many"))
            other = await link.open(COUNT)
            await other.write(b"12345")
            await other.write_eof()
            assert await other.read() == b"5"
            assert not writing.done()
            stream.close()
            with pytest.raises(StreamResetError):
                await writing

    run(work)


def test_writes_of_several_tasks_are_not_mixed(path: str) -> None:
    """One write is one piece, however long, when others write to the same stream."""

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(ECHO)
            reading = asyncio.create_task(read_all(stream))
            await asyncio.gather(*(stream.write(bytes([65 + index]) * 400_000) for index in range(3)))
            await stream.write_eof()
            assert await reading == b"A" * 400_000 + b"B" * 400_000 + b"C" * 400_000

    run(work)


def test_a_port_where_nothing_listens_resets(path: str) -> None:
    """The error of the stream names what the agent said."""

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(4711)
            with pytest.raises(StreamResetError, match="4711"):
                await stream.read()

    run(work)


def test_a_new_host_gets_a_new_session(path: str) -> None:
    """After a host left, the next one attaches, however often, and old streams are dead."""

    async def work() -> None:
        nonces = set()
        for _ in range(3):
            async with linked(path) as link:
                nonces.add(link.hello["nonce"])
                stream = await link.open(ECHO)
                await stream.write(b"hello")
                assert await stream.read() == b"hello"
            with pytest.raises(StreamResetError):
                await stream.read()
            with pytest.raises(LinkError):
                await link.open(ECHO)
        assert len(nonces) == 3

    run(work)


def test_closing_twice_and_cancelled_reads_lose_nothing(path: str) -> None:
    """A read that is cancelled takes no bytes with it; close can be repeated."""

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(ECHO)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.read(), 0.01)
            await stream.write(b"abcdef")
            assert await stream.read(2) == b"ab"
            assert await stream.read(3) == b"cde"
            assert await stream.read(100) == b"f"
            stream.close()
            stream.close()
            await link.close()
            await link.close()
            await link.wait_closed()

    run(work)


def test_an_unknown_protocol_is_refused_at_once(tmp_path: Path) -> None:
    """Trying again would not help, so there is one clear error with a hint."""

    async def work() -> None:
        with pytest.raises(ProtocolMismatchError, match="protocol 7") as caught:
            await mux.connect(str(tmp_path / "agent.sock"))
        assert caught.value.hint

    with guest(tmp_path / "agent.sock", version=7):
        run(work)


def test_a_guest_that_boots_late_is_waited_for(tmp_path: Path) -> None:
    """No socket, then a socket: connect goes on trying."""

    async def work() -> None:
        connecting = asyncio.create_task(mux.connect(str(tmp_path / "agent.sock")))
        await asyncio.sleep(0)
        with guest(tmp_path / "agent.sock"):
            link = await connecting
            await link.close()

    run(work)


def test_a_round_trip_costs_little(path: str) -> None:
    """A thousand small questions and answers take far less than a millisecond of a processor each, guest side
    included.
    """

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(ECHO)
            start = time.process_time()
            for _ in range(1000):
                await stream.write(b"x")
                await stream.read()
            assert time.process_time() - start < 5

    run(work)
