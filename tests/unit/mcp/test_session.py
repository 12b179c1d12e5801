"""What a session holds, and gives back, when something goes wrong on the way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from shed.client import copying
from shed.client.address import Address
from shed.client.copying import Place
from shed.client.forward import Rule
from shed.errors import UnavailableError
from shed.mcp import session
from shed.mcp.grant import Grant
from shed.mcp.session import Session
from support.waiting import SECONDS, until


async def test_a_port_that_cannot_be_had_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for one that is forwarded."""
    asked: list[int] = []

    class Fails:
        def __init__(self, *_: object) -> None:
            pass

        async def listen(self, rule: Rule) -> object:
            asked.append(rule.remote)
            raise UnavailableError("no")

    monkeypatch.setattr(session, "Forwarder", Fails)
    mine = Session(Address(path=str(tmp_path / "nobody.sock")), Grant(sheds=("dev",)))
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await mine.forward(mine.use("dev"), 80)
    assert (asked, mine.use("dev").urls) == ([80, 80], {})


async def test_a_copy_that_hangs_ends_when_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread goes, which would keep the program alive."""
    began, left, ended = threading.Event(), threading.Event(), threading.Event()

    class Hangs:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Hangs:
            return self

        def __exit__(self, *_: object) -> None:
            ended.set()

        def run(self, **_: object) -> None:
            began.set()
            assert left.wait(SECONDS)
            raise UnavailableError("the connection is gone")

        def hang_up(self) -> None:
            left.set()

    monkeypatch.setattr(copying, "Execution", Hangs)
    mine = Session(Address(path=str(tmp_path / "nobody.sock")), Grant(sheds=("dev",), folder=tmp_path))
    copy = asyncio.create_task(mine.files._copied(Place("dev", "/x"), Place("", "x")))
    await until(began.is_set, what="the shed is asked")
    copy.cancel()
    await asyncio.gather(copy, return_exceptions=True)
    await until(ended.is_set, what="the copy has ended")
