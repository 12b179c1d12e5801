"""The host's side of the multiplexer, against guests that start over, vanish, or misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from shed.backends import mux
from shed.backends.base import LinkError
from shed.backends.stream import StreamResetError
from shed.guest import protocol
from support.guests.guest_port import ECHO, run
from support.guests.scripted_guest import ScriptedGuest, hello, read_frame, take_attach


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
            link, reader, writer = await scripted.link()
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
            link, _, writer = await scripted.link()
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
            link, _, writer = await scripted.link()
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
