"""Long work, as its client sees it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed import fsutil
from shed.api.access import Right
from shed.api.base import WorkParams
from shed.api.endpoints import VERIFY_IMAGE
from shed.api.images import VerifyImage
from shed.api.server import Stopping
from shed.progress import Progress
from shed.server import work
from shed.server.audit import Audit
from shed.server.call import Call, Work
from shed.server.caller import Caller
from shed.server.http import MAX_HEAD, Events, HttpConnection, Reply, Request
from shed.server.work import Workers


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    """Return an audit log."""
    log = Audit(tmp_path)
    yield log
    log.close()


def call_of(request: Request, audit: Audit) -> Call[WorkParams, VerifyImage]:
    """Return a call of work that takes long."""
    params = WorkParams(detach=request.query.get("detach") == "true")
    action = audit.begin(request.caller, "POST /api")
    return Call(VERIFY_IMAGE, request, params, VerifyImage(image="x"), action)


async def test_work_that_waits_for_its_turn_answers_all_the_same(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client knows that the server is well, long before the first step."""
    monkeypatch.setattr(work, "_FIRST_EVENT", 0.05)
    request = Request("POST", ("api",), {}, {"accept": "text/event-stream"}, b"", Caller("user", "ann", Right.ADMIN))
    turn = asyncio.Event()

    async def late(progress: Progress) -> Stopping:
        await turn.wait()
        progress.phase("vm", "starting")
        return Stopping(status="done")

    reply = await Workers().run(call_of(request, audit), Work(late))
    assert isinstance(reply, Events)
    turn.set()
    blocks = [block async for block in reply.blocks]
    assert [block.split(b"\n")[1] for block in blocks] == [
        b'data: {"phase":"wait","message":"waiting"}',
        b'data: {"phase":"vm","message":"starting"}',
        b'data: {"status":"done"}',
    ]


async def test_who_watches_hears_whose_lock_the_work_waits_for(
    tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a warning among the events, also from a thread."""
    monkeypatch.setattr(fsutil, "_TOLD_AFTER", 0.0)
    request = Request("POST", ("api",), {}, {"accept": "text/event-stream"}, b"", Caller("user", "ann", Right.ADMIN))
    with contextlib.ExitStack() as other:
        other.enter_context(fsutil.locked(tmp_path / ".lock"))

        def wait() -> None:
            with fsutil.locked(tmp_path / ".lock"):
                pass

        async def work(progress: Progress) -> Stopping:
            await asyncio.to_thread(wait)
            return Stopping(status="done")

        reply = await Workers().run(call_of(request, audit), Work(work))
        assert isinstance(reply, Events)
        first = await anext(reply.blocks)
        other.close()
        rest = [block async for block in reply.blocks]
    assert b'"warning":true' in first
    assert f"{tmp_path}/.lock is in use by process {os.getpid()} (".encode() in first
    assert len(rest) == 1


class Client:
    """A client of a server whose every request is work that lasts until `turn`, and that notes in `left` that nobody
    waits for it.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self.begun, self.turn, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.paths: list[str] = []
        self._workers = Workers()

    async def work(self, progress: Progress) -> Stopping:
        """Last."""
        progress.abandoned.add_callback(self.left.set)
        progress.phase("blobs", "pulling")
        self.begun.set()
        await self.turn.wait()
        return Stopping(status="done")

    async def handle(self, request: Request) -> Reply:
        """Answer a request."""
        self.paths.append("/".join(request.path))
        return await self._workers.run(call_of(request, self._audit), Work(self.work))

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
async def test_work_is_told_that_its_client_has_left(audit: Audit, accept: str, *, detach: bool) -> None:
    """Whether that wants events or not, unless it has said that it would leave; work that does not care goes on to its
    end.
    """
    client = Client(audit)
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


@ACCEPT
async def test_a_client_that_sends_its_next_request_early(audit: Audit, accept: str) -> None:
    """It has not left: what it sent is kept, and answered in its turn."""
    client = Client(audit)
    reader, writer = await client.connect()
    writer.write(ask("/a", accept))
    await client.begun.wait()
    writer.write(ask("/b", accept))
    client.turn.set()
    async with asyncio.timeout(60):
        for _ in range(2):
            await reader.readuntil(b'{"status":"done"}')
    assert (client.paths, client.left.is_set()) == (["a", "b"], False)
    writer.close()
    await client.serving


async def test_a_client_that_sends_without_end(audit: Audit) -> None:
    """It does not wait for an answer, and is no client any more."""
    client = Client(audit)
    _, writer = await client.connect()
    writer.write(ask("/a", "text/event-stream"))
    await client.begun.wait()
    writer.write(b"x" * (2 * MAX_HEAD + 1))
    async with asyncio.timeout(60):
        await client.left.wait()
    writer.close()
    client.turn.set()
    await client.serving
