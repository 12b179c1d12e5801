"""Long work, as its client sees it."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from shed import fsutil
from shed.api.access import Right
from shed.progress import Progress
from shed.server import work
from shed.server.caller import Caller
from shed.server.http import MAX_HEAD, Events, HttpConnection, Reply, Request
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


class Client:
    """A client of a server whose every request is work that lasts until `turn`, and that notes in `left` that nobody
    waits for it.
    """

    def __init__(self) -> None:
        self.begun, self.turn, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.paths: list[str] = []
        self._workers = Workers()

    async def work(self, progress: Progress) -> dict[str, object]:
        """Last."""
        progress.left.also(self.left.set)
        progress.phase("blobs", "pulling")
        self.begun.set()
        await self.turn.wait()
        return {"done": True}

    async def handle(self, request: Request) -> Reply:
        """Answer a request."""
        self.paths.append("/".join(request.path))
        return await self._workers.run(request, self.work)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; the server ends with its client."""
        ours, theirs = socket.socketpair()
        owner = Caller("user", "ann", Right.ADMIN)
        connection = HttpConnection(
            *await asyncio.open_unix_connection(sock=theirs), self.handle, lambda headers: owner
        )
        self.serving = asyncio.create_task(connection.serve())
        return await asyncio.open_unix_connection(sock=ours)


def ask(target: str, accept: str) -> bytes:
    """Return a request."""
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode()


ACCEPT = pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])


@ACCEPT
@pytest.mark.parametrize("detach", [False, True])
def test_work_is_told_that_its_client_has_left(accept: str, *, detach: bool) -> None:
    """Whether that wants events or not, unless it has said that it would leave; work that does not care goes on to its
    end.
    """

    async def main() -> None:
        client = Client()
        _, writer = await client.connect()
        writer.write(ask("/a?detach=true" if detach else "/a", accept))
        await client.begun.wait()
        writer.close()
        if not detach:
            async with asyncio.timeout(60):
                await client.left.wait()
        client.turn.set()
        async with asyncio.timeout(60):
            await client.serving
        assert client.left.is_set() is not detach

    asyncio.run(main())


@ACCEPT
def test_a_client_that_sends_its_next_request_early(accept: str) -> None:
    """It has not left: what it sent is kept, and answered in its turn."""

    async def main() -> None:
        client = Client()
        reader, writer = await client.connect()
        writer.write(ask("/a", accept))
        await client.begun.wait()
        writer.write(ask("/b", accept))
        client.turn.set()
        async with asyncio.timeout(60):
            for _ in range(2):
                await reader.readuntil(b'{"done":true}')
        assert (client.paths, client.left.is_set()) == (["a", "b"], False)
        writer.close()
        await client.serving

    asyncio.run(main())


def test_a_client_that_sends_without_end() -> None:
    """It does not wait for an answer, and is no client any more."""

    async def main() -> None:
        client = Client()
        _, writer = await client.connect()
        writer.write(ask("/a", "text/event-stream"))
        await client.begun.wait()
        writer.write(b"x" * (2 * MAX_HEAD + 1))
        async with asyncio.timeout(60):
            await client.left.wait()
        writer.close()
        client.turn.set()
        await client.serving

    asyncio.run(main())
