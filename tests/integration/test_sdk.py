"""The Python SDK against a real server with fake VMs: what happens when things go wrong, and what stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import shed
from shed import AsyncClient, Client, CommandError, ConnectError, NotFoundError, ShedError
from support.servers.fake_server import fake_server
from support.servers.world import World
from support.waiting import until, wait_until


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of a server."""
    with fake_server(tmp_path):
        yield f"unix://{tmp_path}/run/shed.sock"


def test_a_plain_import_is_cheap() -> None:
    """The names come when they are asked for."""
    script = (
        "import sys, shed; print(*sorted(name for name in sys.modules if name.startswith('shed.') or name in "
        "{'h11', 'asyncio'}))"
    )
    source = str(Path(__file__).parents[2] / "src")
    assert (
        subprocess.check_output(
            [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {source!r}); {script}"]
        )
        == b"\n"
    )
    assert {"Client", "AsyncClient", "ShedError"} <= set(dir(shed))
    with pytest.raises(AttributeError):
        shed.Nothing  # noqa: B018


def test_what_a_block_makes_is_gone_after_it(url: str) -> None:
    """Also when it fails; what was there before stays."""
    client = Client(url)
    with pytest.raises(ZeroDivisionError), client.create() as made:
        assert client.get(made.name).status == "running"
        raise ZeroDivisionError
    with client.create("dev") as dev:
        dev.delete()
    with pytest.raises(NotFoundError):
        client.get(made.name)
    client.create("kept")
    with client.get("kept"):
        pass
    assert [one.name for one in client.list()] == ["kept"]


def test_a_create_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """By ctrl-C, or by cancellation: the server would bring the shed up for nobody."""
    world = World(tmp_path)

    def interrupt() -> None:
        wait_until(world.machines)
        os.kill(os.getpid(), signal.SIGINT)

    with fake_server(tmp_path, "mute"):  # its VMs never say hello
        url = f"unix://{tmp_path}/run/shed.sock"
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            Client(url).create()
        assert Client(url).list() == []

        async def cancelled() -> None:
            create = asyncio.create_task(AsyncClient(url).create())
            await until(world.machines)
            create.cancel()
            await create

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancelled())
        assert Client(url).list() == []


def test_commands(url: str) -> None:
    """Words and scripts, input and both outputs, exit codes, errors."""
    with Client(url).create() as one:
        result = one.exec(["sh", "-c", "cat; echo err >&2; exit 3"], stdin="in")
        assert (result.exit_code, result.text, result.stderr, result.ok) == (3, "in", b"err\n", False)
        with Path("/dev/null").open("rb") as empty:
            assert one.exec("wc -c", stdin=empty).text.strip() == "0"
        assert len(one.exec("head -c 5000000 /dev/zero").stdout) == 5_000_000
        with pytest.raises(CommandError, match="'sh' returned 7: last words") as caught:
            one.exec("echo last words >&2; exit 7", check=True)
        assert (caught.value.code, caught.value.result.exit_code) == ("COMMAND_FAILED", 7)


def test_pipes_and_their_ends(url: str) -> None:
    """Both directions at once; a process that is left is hung up, one that is waited for too short goes on."""
    with Client(url).create() as one:
        with one.popen("cat; exit 5") as process:
            process.stdin.write(b"question\n")
            assert process.stdout.readline() == b"question\n"
            with pytest.raises(TimeoutError):
                process.wait(0.1)
            process.stdin.close()
            assert process.wait() == 5
        with one.popen("echo $$; exec sleep 1000", merge=True) as process:
            pid = int(process.stdout.readline())
        wait_until(lambda: not runs(pid))


def test_ports(url: str) -> None:
    """A socket of one's own, a local port, and what is refused."""
    with Client(url).create() as one:
        with one.connect(7) as sock:
            sock.sendall(b"ping")
            assert sock.recv(4) == b"ping"
        with one.forward(7) as port, contextlib.closing(connect(port)) as sock:
            sock.sendall(b"ping")
            assert sock.recv(4) == b"ping"
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        with pytest.raises(ConnectError):
            one.connect(8)
        one.stop()
        with pytest.raises(ShedError) as caught:
            one.connect(7)
        assert (caught.value.code, one.status) == ("SHED_NOT_RUNNING", "stopped")


def test_secrets(url: str) -> None:
    """They are kept, given and taken, and shown without their values; a shed has its rule for SSH agents."""
    client = Client(url)
    kept = client.set_secret("model", hosts=["api.example.com"], methods=["GET"], value="not to be shown")
    assert (kept.name, kept.variable, kept.hosts, kept.source) == ("model", "MODEL", ["api.example.com"], "value")
    with client.create(secrets=["model"], ssh_agent=["git@git.example.com"]) as one:
        assert (one.info.secrets, one.info.ssh_agent) == (["model"], ["git@git.example.com"])
        (listed,) = client.secrets()
        assert (listed.methods, listed.sheds) == (["GET"], [one.name])
        assert "not to be shown" not in repr((kept, listed))
        with pytest.raises(ShedError, match="model"):
            client.remove_secret("model")
        client.set_secret("other", hosts=["other.example.com"], value="another value")
        assert one.change_secrets(give=["other"], take=["model"]) == ["other"]
        client.remove_secret("model")
        client.remove_secret("other", force=True)
        assert one.refresh().info.secrets == []
        one.update(ssh_agent=[])
        assert one.info.ssh_agent == []
    assert client.secrets() == []


def asynchronously(url: str, work: Callable[[shed.AsyncShed], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        client = AsyncClient(url)
        async with await client.create() as one:
            assert [each.name for each in await client.list()] == [one.name]
            await work(one)
        assert await client.list() == []

    asyncio.run(main())


def test_async_commands(url: str) -> None:
    """Many at once, over connections of their own; errors are the same as elsewhere."""

    async def work(one: shed.AsyncShed) -> None:
        results = await asyncio.gather(*(one.exec(f"cat; exit {code}", stdin=b"x" * 100_000) for code in range(10)))
        assert [(result.exit_code, len(result.stdout)) for result in results] == [(code, 100_000) for code in range(10)]
        with pytest.raises(CommandError, match="last words"):
            await one.exec("echo last words >&2; exit 7", check=True)
        async with await one.popen("echo one; echo two; read line; echo $line; exit 4") as process:
            assert [await process.stdout.readline(), await process.stdout.readline()] == [b"one\n", b"two\n"]
            await process.stdin.write(b"three\n")
            assert [line async for line in process.stdout] == [b"three\n"]
            assert await process.wait() == 4
        async with await one.popen("echo $$; exec sleep 1000") as process:
            pid = int(await process.stdout.readline())
        wait_until(lambda: not runs(pid))
        await one.stop()
        await one.start()
        assert "booted" in await one.logs()

    asynchronously(url, work)


def test_async_output_that_nobody_reads_is_held_back(url: str) -> None:
    """The client takes no more than it can hold, and all of it comes when somebody reads."""

    async def work(one: shed.AsyncShed) -> None:
        async with await one.popen(["head", "-c", "50000000", "/dev/zero"]) as process:
            await asyncio.sleep(1)
            assert len(process.stdout._data) < 1 << 20
            assert len(await process.stdout.read()) == 50_000_000
            assert await process.wait() == 0

    asynchronously(url, work)


def test_async_ports(url: str) -> None:
    """Streams into the shed, and a local port."""

    async def work(one: shed.AsyncShed) -> None:
        reader, writer = await one.connect(7)
        writer.write(b"ping")
        writer.write_eof()
        assert await reader.read() == b"ping"
        writer.close()
        async with one.forward(7) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"pong")
            assert await reader.readexactly(4) == b"pong"
            writer.close()
        with pytest.raises(ConnectError):
            await one.connect(8)

    asynchronously(url, work)


def test_async_secrets(url: str) -> None:
    """As without await."""

    async def work(one: shed.AsyncShed) -> None:
        client = AsyncClient(url)
        await client.set_secret("model", hosts=["api.example.com"], value="a value of some length")
        assert await one.change_secrets(give=["model"]) == ["model"]
        assert [each.sheds for each in await client.secrets()] == [[one.name]]
        await client.remove_secret("model", force=True)
        await one.update(ssh_agent=["*"])
        assert one.info.ssh_agent == ["*"]

    asynchronously(url, work)


def test_a_vm_that_dies_under_a_command(url: str) -> None:
    """An error of its own, in both clients; never a result that looks complete."""
    with Client(url).create() as one:
        with one.popen("echo up; sleep 1000") as process:
            assert process.stdout.readline() == b"up\n"
            os.kill(one.refresh().info.pid, signal.SIGKILL)
            with pytest.raises(ShedError) as caught:
                process.wait()
            assert caught.value.code == "EXEC_LOST"
        wait_until(lambda: one.refresh().status != "running")
        one.start()

    async def work(one: shed.AsyncShed) -> None:
        async with await one.popen("echo up; sleep 1000") as process:
            assert await process.stdout.readline() == b"up\n"
            os.kill((await one.refresh()).info.pid, signal.SIGKILL)
            with pytest.raises(ShedError) as caught:
                await process.wait()
            assert caught.value.code == "EXEC_LOST"

    asynchronously(url, work)


def test_the_server_is_named_or_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the command line; one that is not there is an error with a hint."""
    monkeypatch.setenv("SHED_SERVER", "unix:///nowhere/shed.sock")
    with pytest.raises(ShedError) as caught:
        Client().info()
    assert caught.value.hint
    with pytest.raises(ShedError):
        asyncio.run(AsyncClient("http://127.0.0.1:1").info())


def connect(port: int) -> Any:
    import socket

    return socket.create_connection(("127.0.0.1", port), timeout=60)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
