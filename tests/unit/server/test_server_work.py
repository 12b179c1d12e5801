"""Long work, as its client sees it."""

import asyncio

import pytest

from shed.progress import Progress
from shed.server import work
from shed.server.caller import Caller, Right
from shed.server.http import Events, Request
from shed.server.work import Workers


def test_work_that_waits_for_its_turn_answers_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client knows that the server is well, long before the first step."""
    monkeypatch.setattr(work, "_FIRST_EVENT", 0.05)
    request = Request("POST", ("api",), {}, {"accept": "text/event-stream"}, b"", Caller("user", "ann", Right.ADMIN))

    async def main() -> None:
        turn = asyncio.Event()

        async def late(progress: Progress) -> dict[str, object]:
            await turn.wait()
            progress.phase("vm", "starting")
            return {"done": True}

        reply = await Workers().run(request, late)
        assert isinstance(reply, Events)
        turn.set()
        blocks = [block async for block in reply.blocks]
        assert [block.split(b"\n")[1] for block in blocks] == [
            b'data: {"phase":"wait","message":"waiting"}',
            b'data: {"phase":"vm","message":"starting"}',
            b'data: {"done":true}',
        ]

    asyncio.run(main())
