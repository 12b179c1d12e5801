"""Taking the host's bytes apart, and the port that they come from."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from shed.guest import protocol as p
from shed.guest.demux import Demux
from shed.guest.loop import Loop
from shed.guest.transport import Port

FRAMES = [
    (p.OPEN, 1, b"\0\0\4\0"), (p.DATA, 1, os.urandom(65536)), (p.DATA, 2, b""), (p.DATA, 2, b"x"), (p.EOF, 2, b""),
    (p.CREDIT, 1, b"\0\0\0\7"), (p.DATA, 1, os.urandom(70)), (p.RESET, 1, os.urandom(65536)), (77, 0, b"unknown"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_frames_cut_anywhere(seed: int) -> None:
    """Frames come whole and in order; data comes in pieces that are all of it."""
    chance = random.Random(seed)
    seen: list[tuple[int, int, bytes]] = []
    data: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}

    def take(stream: int, piece: memoryview) -> None:
        data[stream] += piece

    demux = Demux(lambda *frame: seen.append(frame), take)
    received = memoryview(b"".join(p.mux_frame(*frame) for frame in FRAMES))
    while received:
        size = chance.choice([1, 8, 9, 10, 100, 40_000])
        demux.feed(received[:size])
        received = received[size:]
    assert seen == [frame for frame in FRAMES if frame[0] != p.DATA]
    for number, content in data.items():
        assert content == b"".join(frame[2] for frame in FRAMES if frame[:2] == (p.DATA, number))


def test_a_frame_that_is_too_long() -> None:
    """Refused as soon as its header is there, of whatever kind."""
    for kind in (p.DATA, p.RESET, 77):
        demux = Demux(lambda *_: None, lambda *_: None)
        header = p.mux_frame(kind, 1)[:5] + (p.MAX_MUX_PAYLOAD + 1).to_bytes(4, "big")
        demux.feed(memoryview(header[:8]))
        with pytest.raises(p.ProtocolError, match="65537 bytes"):
            demux.feed(memoryview(header[8:]))


def run(loop: Loop, work: Coroutine[Any, Any, None]) -> None:
    """Run a task to its end."""

    async def whole() -> None:
        try:
            await work
        finally:
            loop.stop()

    task = loop.spawn(whole(), name="test")
    loop.run()
    loop.close()
    assert task.error is None


def test_the_port_takes_all_that_is_there() -> None:
    """Little at first, then as much as has come; nothing is lost or mixed up, and the end is told."""
    ours, theirs = socket.socketpair()
    sent = os.urandom(150_000)
    loop = Loop()

    async def work() -> None:
        port = Port(loop, ours.detach())
        received, sizes, at = bytearray(), list[int](), 0
        for size in (10, 4096, 4096 * 5, 100, 60_000, 0):
            theirs.sendall(sent[at : at + size])
            at += size
            while len(received) < at:
                data = await port.read()
                sizes.append(len(data))
                received += data
        theirs.close()
        assert not await port.read()
        assert received == sent[:at]
        assert sizes[:3] == [10, 4096, 4096 * 5]
        port.close()

    run(loop, work())
