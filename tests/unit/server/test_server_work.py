"""Long work, as its client sees it."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from shed import fsutil
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


def test_who_watches_hears_whose_lock_the_work_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a warning among the events, also from a thread."""
    monkeypatch.setattr(fsutil, "_TOLD_AFTER", 0.0)
    request = Request("POST", ("api",), {}, {"accept": "text/event-stream"}, b"", Caller("user", "ann", Right.ADMIN))

    async def main() -> None:
        with contextlib.ExitStack() as other:
            other.enter_context(fsutil.locked(tmp_path / ".lock"))

            def wait() -> None:
                with fsutil.locked(tmp_path / ".lock"):
                    pass

            async def work(progress: Progress) -> dict[str, object]:
                await asyncio.to_thread(wait)
                return {"done": True}

            reply = await Workers().run(request, work)
            assert isinstance(reply, Events)
            first = await anext(reply.blocks)
            other.close()
            rest = [block async for block in reply.blocks]
        assert b'"warning":true' in first
        assert f"{tmp_path}/.lock is in use by process {os.getpid()} (".encode() in first
        assert len(rest) == 1

    asyncio.run(main())
