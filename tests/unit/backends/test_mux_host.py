"""The host's side of the multiplexer, against the guest's own, and against guests that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from shed.backends import mux
from shed.backends.mux import LinkError, MuxConnection, ProtocolMismatchError, StreamResetError
from shed.guest import protocol
from support.guest_port import COUNT, ECHO, SINK, SOURCE, guest


def run(work: Callable[[], Awaitable[None]], seconds: float = 60) -> None:
    """Run `work` in an event loop, with a deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(bounded())


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest whose answer this process is slow to take in is not hung up on."""
    monkeypatch.setattr(mux, "HELLO_TIMEOUT", 30.0)
    monkeypatch.setattr(mux, "_MOST_PATIENCE", 30.0)


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


async def read_all(stream: mux.MuxStream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, protocol.INITIAL_CREDIT, protocol.INITIAL_CREDIT + 1, 3_000_000])
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
    """The guest sends no more than the window; memory stays bounded, and reading sets it going again."""

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(SOURCE)
            other = await link.open(ECHO)
            for _ in range(50):  # enough turns for the guest to send all it may
                await other.write(b"x")
                await other.read()
            assert sum(map(len, stream._chunks)) <= protocol.INITIAL_CREDIT
            taken = 0
            while taken < 4 * protocol.INITIAL_CREDIT:
                taken += len(await stream.read(1000))
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


class ScriptedGuest:
    """A guest of which the test decides every byte."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> ScriptedGuest:
        self._server = await asyncio.start_unix_server(self._connected, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
        self._server.close()
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._connections.put_nowait((reader, writer))

    async def host(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._connections.get()


def hello(nonce: str = "n1") -> bytes:
    payload = json.dumps({"nonce": nonce, "agent": "scripted", "protocol": protocol.PROTOCOL}).encode()
    return protocol.MAGIC + protocol.mux_frame(protocol.HELLO, 0, payload)


async def take_attach(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, nonce: str = "n1") -> None:
    """Read the host's attach and its question to port 0, and refuse that as an agent does."""
    expected = protocol.MAGIC + protocol.mux_frame(protocol.ATTACH, 0, nonce.encode())
    assert await reader.readexactly(len(expected)) == expected
    kind, number, payload = await read_frame(reader)
    assert (kind, payload) == (protocol.OPEN, bytes(4))
    writer.write(protocol.mux_frame(protocol.RESET, number, b"nothing listens on port 0"))


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    header = await reader.readexactly(protocol.MUX_HEADER)
    length = int.from_bytes(header[5:9], "big")
    return header[0], int.from_bytes(header[1:5], "big"), await reader.readexactly(length)


def test_left_over_bytes_before_the_hello_are_thrown_away(tmp_path: Path) -> None:
    """Half a frame of a session before, parts of a magic, and then the hello."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            reader, writer = await scripted.host()
            writer.write(protocol.mux_frame(protocol.DATA, 9, b"left over")[3:] + protocol.MAGIC[:7] + hello())
            await take_attach(reader, writer)
            link = await connecting
            assert link.hello["nonce"] == "n1"
            await link.close()

    run(work)


def test_a_hello_that_was_left_over_is_followed_by_the_right_one(tmp_path: Path) -> None:
    """A stale hello is attached to in vain; the guest's next one, on the same connection, counts."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            reader, writer = await scripted.host()
            writer.write(hello("stale") + hello("fresh"))
            await reader.readuntil(b"stale")
            await read_frame(reader)  # the question to port 0 that nobody answers
            await take_attach(reader, writer, "fresh")
            link = await connecting
            assert link.hello["nonce"] == "fresh"
            await link.close()

    run(work)


def test_a_silent_guest_is_hung_up_on_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port whose agent missed our coming hears a hang-up and a new connection."""
    monkeypatch.setattr(mux, "HELLO_TIMEOUT", 0.05)
    monkeypatch.setattr(mux, "_PATIENCE_GROWTH", 600.0)
    monkeypatch.setattr(mux, "_RETRY_PAUSE", 0.01)

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            silent, _ = await scripted.host()
            assert await silent.read() == b""
            reader, writer = await scripted.host()
            writer.write(hello())
            await take_attach(reader, writer)
            await (await connecting).close()

    run(work)


def test_an_agent_that_starts_over_cuts_the_streams_and_the_link_goes_on(tmp_path: Path) -> None:
    """A new hello in the middle of a session: old streams fail, new ones work on the same connection."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            reader, writer = await scripted.host()
            writer.write(hello())
            await take_attach(reader, writer)
            link = await connecting
            old = await link.open(ECHO)
            kind, number, _ = await read_frame(reader)
            assert kind == protocol.OPEN
            writer.write(protocol.mux_frame(protocol.DATA, number, b"before") + hello("n2"))
            await take_attach(reader, writer, "n2")
            assert await old.read() == b"before"
            with pytest.raises(StreamResetError):
                await old.read()
            new = await link.open(ECHO)
            _, number, _ = await read_frame(reader)
            writer.write(protocol.mux_frame(protocol.DATA, number, b"after"))
            assert await new.read() == b"after"
            assert link.hello["nonce"] == "n2"
            await link.close()

    run(work)


SESSION = (
    protocol.mux_frame(protocol.DATA, 2, b"0123456789")
    + protocol.mux_frame(protocol.CREDIT, 2, (5).to_bytes(4, "big"))
    + protocol.mux_frame(protocol.EOF, 2)
)


@pytest.mark.parametrize("cut", range(len(SESSION) + 1))
def test_a_guest_that_vanishes_at_any_byte_is_noticed(tmp_path: Path, cut: int) -> None:
    """Whatever was complete before the cut is delivered; then the stream fails, unless its end had come."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            reader, writer = await scripted.host()
            writer.write(hello())
            await take_attach(reader, writer)
            link = await connecting
            stream = await link.open(ECHO)
            assert stream._number == 2
            writer.write(SESSION[:cut])
            writer.close()
            await link.wait_closed()
            got = b""
            with contextlib.suppress(StreamResetError):
                while data := await stream.read():
                    got += data
                assert cut == len(SESSION)
            assert got == (b"0123456789" if cut >= protocol.MUX_HEADER + 10 else b"")

    run(work)


@pytest.mark.parametrize("split", range(1, 130, 3))
def test_the_hello_may_come_in_pieces(tmp_path: Path, split: int) -> None:
    """Where the bytes of hello are divided does not matter."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            reader, writer = await scripted.host()
            data = b"\x00\xff" + hello()
            writer.write(data[:split])
            await asyncio.sleep(0)
            writer.write(data[split:])
            await take_attach(reader, writer)
            await (await connecting).close()

    run(work)


@pytest.mark.parametrize(
    "frame",
    [
        protocol.mux_frame(99, 2),
        protocol.mux_frame(protocol.DATA, 2, b"x") * (protocol.INITIAL_CREDIT + 1),
        protocol.mux_frame(protocol.EOF, 2) + protocol.mux_frame(protocol.DATA, 2, b"after the end"),
    ],
    ids=["unknown kind", "beyond the window", "after the end"],
)
def test_a_guest_that_breaks_the_protocol_loses_its_link(tmp_path: Path, frame: bytes) -> None:
    """Frames that cannot be end the link instead of filling memory."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            reader, writer = await scripted.host()
            writer.write(hello())
            await take_attach(reader, writer)
            link = await connecting
            stream = await link.open(ECHO)
            writer.write(frame)
            await link.wait_closed()
            with pytest.raises(LinkError, match="broke the protocol"):
                await link.open(ECHO)
            stream.close()

    run(work)


@pytest.mark.parametrize("payload", [b"not json", b"[]", b'{"nonce": 5, "protocol": 1}', b'{"protocol": 1}'])
def test_a_hello_that_makes_no_sense_is_not_attached_to(tmp_path: Path, payload: bytes) -> None:
    """The link is dropped, and the guest has another try."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))
            reader, writer = await scripted.host()
            writer.write(protocol.MAGIC + protocol.mux_frame(protocol.HELLO, 0, payload))
            assert await reader.read() == b""
            reader, writer = await scripted.host()
            writer.write(hello())
            await take_attach(reader, writer)
            await (await connecting).close()

    run(work)


def test_a_round_trip_costs_little(path: str) -> None:
    """A thousand small questions and answers take far less than a millisecond of a processor each, guest side included."""

    async def work() -> None:
        async with linked(path) as link:
            stream = await link.open(ECHO)
            start = time.process_time()
            for _ in range(1000):
                await stream.write(b"x")
                await stream.read()
            assert time.process_time() - start < 5

    run(work)
