"""Accepting connections when there is no file descriptor left for one."""

import asyncio
import json
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shed import accept
from shed.accept import Acceptor
from shed.fsutil import MOST_FILES

SOON = 30.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def _until(condition: asyncio.Event) -> None:
    await asyncio.wait_for(condition.wait(), SOON)


async def test_descriptors_that_run_out(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Accepting pauses, the log gets one line for any number of failures, and who waits is served once there is room.

    asyncio's server, which 6aee119 used, logs a traceback for each of them.
    """
    monkeypatch.setattr(accept, "PAUSE", 0.005)

    async def scenario() -> int:
        served, failures = asyncio.Event(), asyncio.Event()
        failed = 0

        async def serve(accepted: socket.socket) -> None:
            accepted.close()
            served.set()

        acceptor = Acceptor(listener, serve, name="test")
        pause = acceptor._failed

        def counted(error: OSError) -> None:
            nonlocal failed
            failed += 1
            if failed == 5:
                failures.set()
            pause(error)

        monkeypatch.setattr(acceptor, "_failed", counted)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.create_connection(listener.getsockname()):
            acceptor.start()
            last = os.open("/dev/null", os.O_RDONLY)
            os.close(last)
            resource.setrlimit(resource.RLIMIT_NOFILE, (last, before[1]))
            try:
                await _until(failures)
                assert not served.is_set()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            await _until(served)
        acceptor.close()
        return failed

    with caplog.at_level(logging.DEBUG):
        assert await scenario() >= 5
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == ["test: new connections wait: Too many open files (failure 1)"]


async def test_who_is_not_admitted(listener: socket.socket) -> None:
    """Is hung up on before anything is read, and the next one is asked about anew."""
    answers = iter([False, True])

    async def serve(accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        writer.write(await reader.readline())
        writer.close()

    acceptor = Acceptor(listener, serve, name="test", admit=lambda accepted: next(answers))
    acceptor.start()
    for expected in (b"", b"hello\n"):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        if expected:
            writer.write(expected)
        assert await asyncio.wait_for(reader.read(), SOON) == expected
        writer.close()
    acceptor.close()
    assert listener.fileno() < 0


async def test_one_connection_that_fails(listener: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """Is closed and logged; the others are served."""

    async def scenario() -> list[bytes]:
        async def serve(accepted: socket.socket) -> None:
            if await asyncio.get_running_loop().sock_recv(accepted, 1) == b"!":
                raise ValueError("served badly")
            accepted.send(b"served")
            accepted.close()

        acceptor = Acceptor(listener, serve, name="test")
        acceptor.start()
        received = []
        for sent in (b"!", b"."):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(sent)
            received.append(await asyncio.wait_for(reader.read(), SOON))
            writer.close()
        acceptor.close()
        return received

    assert await scenario() == [b"", b"served"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "test: a connection failed"
    ]


def test_the_limit_is_raised() -> None:
    """To what the administrator allows, and not beyond a number that is enough; a lower hard limit is no error."""
    code = """if True:
        import json, resource
        from shed.fsutil import raise_file_limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 700))
        raise_file_limit()
        print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [700, 700]
    assert MOST_FILES >= 1 << 16
