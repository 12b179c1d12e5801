"""The host's side of the multiplexer, against guests that send what nobody asked for: it costs little, and then the
link is dropped.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from shed.backends import mux
from shed.backends.base import LinkAbusedError, LinkError
from shed.backends.link_budget import BREAK_BURST, IDLE_BURST, IDLE_FRAMES, NOISE_BURST, Allowance, LinkBudget
from shed.backends.stream import MuxStream, StreamResetError
from shed.guest import protocol
from support.fuzz import fuzz
from support.guests.guest_port import COUNT, SOURCE, guest, run
from support.guests.scripted_guest import ScriptedGuest, hello

JUNK = protocol.MAGIC + b"\xff" * protocol.MUX_HEADER
"""The beginning of a session, and what cannot be its first frame."""


def said(kind: int, number: int, payload: bytes = b"") -> bytes:
    return protocol.mux_frame(kind, number, payload)


def greeting(**members: Any) -> bytes:
    members = {"nonce": "n", "agent": "a", "protocol": protocol.PROTOCOL, **members}
    return protocol.MAGIC + said(protocol.HELLO, 0, json.dumps(members).encode())


@pytest.mark.parametrize(
    ("flood", "why"),
    [
        (JUNK * 1000, "breaks the protocol again and again"),
        (greeting(nonce=7), "breaks the protocol again and again: the agent's hello has no nonce"),
        (greeting(nonce="\ud800"), "surrogates"),
        (greeting(nonce="n" * 200), "no nonce"),
        (greeting(deep=[[[[[[[[[]]]]]]]]]), "deep"),
        (protocol.MAGIC + said(protocol.DATA, 0), "before its hello"),
        (b"x" * (2 * NOISE_BURST), "belong to no session"),
    ],
    ids=["junk", "number", "surrogate", "long", "deep", "early", "noise"],
)
def test_a_guest_that_never_says_hello_properly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, flood: bytes, why: str
) -> None:
    """It is given up soon, with one error that says why; nothing escapes into the event loop, and the log gets a few
    lines.
    """
    monkeypatch.setattr(mux, "_RETRY_PAUSE", 0.001)
    caplog.set_level(logging.INFO)
    escaped: list[dict[str, Any]] = []

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            connecting = asyncio.create_task(mux.connect(scripted.path))

            async def attack() -> None:
                while True:
                    _, writer = await scripted.host()
                    writer.write(flood)

            attacking = asyncio.create_task(attack())
            with pytest.raises(LinkAbusedError, match=why) as caught:
                await connecting
            assert len(caught.value.message) < 500
            attacking.cancel()

    run(work)
    assert not escaped
    assert len(caplog.text) < 200 * BREAK_BURST


@pytest.mark.parametrize(
    "frame",
    [
        said(protocol.DATA, 1),
        said(protocol.DATA, 99, b"x"),
        said(protocol.RESET, 99),
        said(protocol.CREDIT, 99),
        said(protocol.EOF, 99),
    ],
    ids=["empty", "unknown", "reset", "credit", "eof"],
)
def test_frames_that_carry_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, frame: bytes) -> None:
    """A flood of them takes a bounded share of each turn of the event loop, and then the link is dropped, without a
    line for each.
    """
    caplog.set_level(logging.DEBUG)

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            link, _, writer = await scripted.link()
            stream = await link.open(7)
            turns: list[int] = []
            handled = _count(link)
            writer.write(frame * (IDLE_BURST * 5))

            async def watch() -> None:
                while True:
                    before = handled[0]
                    await asyncio.sleep(0)
                    turns.append(handled[0] - before)

            watching = asyncio.create_task(watch())
            misuse = await link.wait_closed()
            watching.cancel()
            assert misuse is not None
            assert f"more than {IDLE_FRAMES} frames a second that carry nothing" in misuse.message
            assert max(turns) == mux.FRAMES_PER_TURN
            with pytest.raises(StreamResetError, match="carry nothing"):
                await stream.read()
            with pytest.raises(LinkAbusedError):
                await link.open(7)

    run(work)
    assert len(caplog.text) < 1000


def _count(link: mux.MuxConnection) -> list[int]:
    """Count the frames that a link handles from now on, in the one member of what is returned."""
    handled, take = [0], link._take

    def counted(kind: int, number: int, payload: bytes) -> None:
        handled[0] += 1
        take(kind, number, payload)

    link._take = counted  # type: ignore[method-assign]
    return handled


@pytest.mark.parametrize("credit", [b"", b"\0\0\0\0\1", b"\xff" * 4, b"\xff" * protocol.MAX_MUX_PAYLOAD])
def test_a_credit_that_is_none(tmp_path: Path, credit: bytes) -> None:
    """Of another length, or a gigabyte: the link is dropped, and no number grows."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            link, _, writer = await scripted.link()
            stream = await link.open(7)
            writer.write(said(protocol.CREDIT, stream._number, credit))
            assert await link.wait_closed() is not None

    run(work)


def test_single_bytes_are_put_together(tmp_path: Path) -> None:
    """A guest that sends byte by byte costs neither an object nor a read for each."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            link, _, writer = await scripted.link()
            stream = await link.open(7)
            writer.write(said(protocol.DATA, stream._number, b"x") * 100_000 + said(protocol.EOF, stream._number))
            while not stream._ended_by_guest:
                await asyncio.sleep(0)
            assert len(stream._chunks) <= 2
            assert await stream.read() + await stream.read() == b"x" * 100_000
            await link.close()

    run(work)


def test_what_a_closed_stream_was_granted_costs_nothing(tmp_path: Path) -> None:
    """An honest guest cannot know yet that it was closed; what it sends beyond that, it pays for."""

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            link, _, writer = await scripted.link()
            link._budget = LinkBudget(lambda: 0.0)
            frame = bytes(protocol.MAX_MUX_PAYLOAD)
            for _ in range(20):
                stream = await link.open(7)
                stream.close()
                writer.write(
                    said(protocol.DATA, stream._number, frame) * (protocol.INITIAL_CREDIT // protocol.MAX_MUX_PAYLOAD)
                )
            last = await link.open(7)
            writer.write(said(protocol.DATA, last._number, b"x"))
            assert await last.read() == b"x"
            assert link._budget._idle._left > IDLE_BURST - 100
            writer.write(said(protocol.DATA, stream._number, frame) * 50)
            misuse = await link.wait_closed()
            assert misuse is not None
            assert "carry nothing" in misuse.message

    run(work)


def test_a_guest_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way to it does not grow without end."""
    monkeypatch.setattr(mux, "MOST_UNSENT", mux._SOCKET_HIGH)

    async def work() -> None:
        async with ScriptedGuest(str(tmp_path / "s")) as scripted:
            link, reader, _ = await scripted.link()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            with pytest.raises(LinkAbusedError, match="takes nothing"):
                while True:
                    (await link.open(7)).close()
                    await asyncio.sleep(0)

    run(work)


def test_honest_use_does_not_touch_the_budget(tmp_path: Path) -> None:
    """A budget that is never filled up again is enough for 128 MiB each way, and for a thousand streams."""

    async def work() -> None:
        link = await mux.connect(str(tmp_path / "s"))
        link._budget = LinkBudget(lambda: 0.0)
        source, count = await link.open(SOURCE), await link.open(COUNT)

        async def take() -> None:
            size = 0
            while size < 128 << 20:
                size += len(await source.read())
            source.close()

        async def give() -> None:
            for _ in range(128):
                await count.write(bytes(1 << 20))
            await count.write_eof()
            assert await count.read() == str(128 << 20).encode()

        await asyncio.gather(take(), give())
        for _ in range(1000):
            stream = await link.open(COUNT)
            await stream.write_eof()
            assert await stream.read() == b"0"
        assert link._budget._idle._left > IDLE_BURST * 0.8
        await link.close()

    with guest(tmp_path / "s"):
        run(work)


def test_an_allowance_comes_back_with_time() -> None:
    """At its rate, and never to more than its burst."""
    now = [0.0]
    allowance = Allowance(10.0, 20.0, lambda: now[0])
    assert [allowance.take(20), allowance.take(1)] == [True, False]
    now[0] = 1.0
    assert [allowance.take(9), allowance.take(1)] == [True, False]
    now[0] = 1000.0
    assert [allowance.take(19), allowance.take(1), allowance.take(1)] == [True, True, False]


class Transport(asyncio.Transport):
    """A socket that takes everything: what a link needs of one, so that fuzzing needs no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


@pytest.mark.slow
def test_any_bytes_at_all() -> None:
    """Whatever comes in whatever pieces, before the hello and behind it: the link lives on or is dropped, and keeps
    little.
    """
    kinds, numbers = st.integers(0, 9), st.integers(0, 4)
    payloads = st.binary(max_size=40) | st.sampled_from([b"\0\0\0\1", b"\xff" * 4, bytes(65536), greeting()[25:]])
    frames = st.builds(said, kinds, numbers, payloads)
    pieces = (
        frames
        | frames.map(lambda frame: frame * 300)
        | st.binary(max_size=60)
        | st.sampled_from([hello(), JUNK, protocol.MAGIC, b"\0" * 9])
    )

    def check(sent: list[bytes]) -> None:
        asyncio.run(work(sent))

    async def work(sent: list[bytes]) -> None:
        escaped: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
        link, transport, streams = mux.MuxConnection(patience=60.0), Transport(), list[MuxStream]()
        link.connection_made(transport)
        for data in sent:
            if link._greeted and len(streams) < 3:
                streams.append(await link.open(7))
            link.data_received(data)
            for _ in range(40):
                await asyncio.sleep(0)
            assert link._decoder.pending() <= protocol.MAX_MUX_PAYLOAD + protocol.MUX_HEADER or transport.closed
            if transport.closed:
                break
        for stream in streams:
            assert sum(map(len, stream._chunks)) <= protocol.GROWN_CREDIT
            assert stream._reset is None or stream._reset.isprintable()
        assert not transport.closed or isinstance(link._failure, LinkError)
        link.connection_lost(None)
        assert not escaped

    fuzz(
        check,
        st.lists(pieces, max_size=12)
        | st.lists(pieces, max_size=12).map(lambda sent: [greeting(), said(protocol.RESET, 1), *sent]),
    )
