"""Published ports of sheds with fake VMs, whose port 7 echoes and whose port 9 pours: who gets in, and for how long."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from shed.api.ports import ChangePorts, PublishedPort
from shed.egress.rules.hostports import HostPort
from shed.errors import ConflictError, DataError, NotFoundError, UsageError
from shed.progress import Progress
from shed.sheds import listeners, portcheck
from shed.sheds import ports as module
from shed.sheds.listeners import who_listens
from shed.sheds.manager import Manager
from shed.sheds.metadata import save
from shed.sheds.portspec import Published
from support.ports import free_port
from support.servers.world import World, create
from support.waiting import until

HAS_IPV6 = Path("/proc/net/if_inet6").exists()


async def echo(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    """Send all of `data` to a published port, say so, and return what comes back."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read(-1)
    finally:
        writer.close()


async def is_reset(port: int) -> bool:
    """Say whether a connection there is reset before anything comes."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionResetError:
        return True
    try:
        assert await reader.read(1) == b"never"
    except ConnectionResetError:
        return True
    finally:
        writer.close()
    return False


async def is_closed(port: int) -> bool:
    """Say whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def published(manager: Manager, name: str) -> list[int]:
    """Return the ports of this host that lead to the shed, by its record."""
    return [one.port for one in manager.catalog.record(name).published]


@pytest.mark.parametrize(
    ("text", "address", "port", "shed_port"),
    [
        ("80", None, 0, 80),
        (":80", None, 0, 80),
        ("0:80", None, 0, 80),
        ("8080:80", None, 8080, 80),
        ("localhost:8080:80", None, 8080, 80),
        ("127.0.0.1:8080:80", "127.0.0.1", 8080, 80),
        ("127.0.0.1::80", "127.0.0.1", 0, 80),
        ("[::1]:8080:80", "::1", 8080, 80),
        ("[0:0::1]:8080:80", "::1", 8080, 80),
        ("0.0.0.0:8080:80", "0.0.0.0", 8080, 80),
    ],
)
def test_a_port_is_written_as_docker_has_it(text: str, address: str | None, port: int, shed_port: int) -> None:
    """And reads the same when it is written out again."""
    found = Published.parse(text)
    assert found == Published(address, port, shed_port)
    assert Published.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", "0", "65536", "80:65536", "80:0", "a:80", "80/udp", "1.2.3:80:80", "::1:80:80", "127.0.0.1:80", "80:80:80:80",
     "[::1:80:80", "[1]:80:80", "999.1.1.1:1:1", "-1:80", "８０", "80\n", "example.com:80:80"],
)  # fmt: skip
def test_what_is_no_port_is_refused(text: str) -> None:
    """In one sentence, with the way to write it."""
    with pytest.raises(UsageError) as caught:
        Published.parse(text)
    assert caught.value.code == "INVALID_PORT"


async def test_a_published_port_leads_into_the_shed_as_long_as_it_runs(world: World) -> None:
    """From the create on, over stop and start, until the delete."""
    port = free_port()
    async with world.manager() as manager:
        shown = await create(manager, "dev", ports=[f"{port}:7"])
        assert shown["ports"] == [f"localhost:{port}:7"]
        assert await echo(port, b"hello") == b"hello"
        if HAS_IPV6:
            assert await echo(port, b"six", "::1") == b"six"
        await manager.stop("dev", Progress())
        assert await is_closed(port)
        assert [one.open for one in manager.ports.shown(manager.catalog.record("dev"))] == [False]
        await manager.start("dev", Progress())
        assert await echo(port, b"again" * 100_000) == b"again" * 100_000
        await manager.delete("dev", force=True, progress=Progress())
        assert await is_closed(port)


async def test_the_next_server_publishes_again(world: World) -> None:
    """What a free port was, it stays."""
    async with world.manager() as manager:
        await create(manager, "dev", ports=["7"])
        (port,) = published(manager, "dev")
        assert await echo(port, b"one") == b"one"
    assert await is_closed(port)
    async with world.manager() as manager:
        await until(lambda: manager.ports.shown(manager.catalog.record("dev"))[0].open, what="the port is open")
        assert published(manager, "dev") == [port]
        assert await echo(port, b"two") == b"two"


async def test_a_port_in_use_is_named_with_who_has_it(world: World) -> None:
    """Before anything of the shed is made."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with world.manager() as manager:
            with pytest.raises(ConflictError, match=rf"port {port} on localhost is in use by process \d+ \(") as caught:
                await create(manager, "dev", ports=[f"{port}:7"])
            assert caught.value.code == "PORT_IN_USE"
            assert world.traces() == set()
            other.close()
            await create(manager, "one", ports=[f"{port}:7"])
            with pytest.raises(ConflictError, match="in use by shed 'one'") as caught:
                await create(manager, "two", ports=[f"{port}:9"])
            assert f"shed ports one --unpublish {port}" in str(caught.value.hint)
            assert await echo(port, b"x") == b"x"


async def test_a_create_that_fails_gives_the_port_back(world: World) -> None:
    """Whatever it failed at."""
    port = free_port()
    async with world.manager() as manager:
        with pytest.raises(NotFoundError):
            await create(manager, "dev", image="none", ports=[f"{port}:7"])
        assert await is_closed(port)


async def test_a_port_that_is_in_use_when_a_server_starts_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shed runs on, what is wrong is told, and the port is published when it is free."""
    monkeypatch.setattr(module, "_AGAIN", 0.05)
    port = free_port()
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{port}:7"])
    with socket.create_server(("127.0.0.1", port)):
        async with world.manager() as manager:
            await until(lambda: "in use by process" in shown(manager).problem, what="the problem is told")
            assert not shown(manager).open
    async with world.manager() as manager:
        await until(lambda: shown(manager).open, what="the port is open")
        assert shown(manager).problem == ""
        assert await echo(port, b"x") == b"x"


def shown(manager: Manager) -> PublishedPort:
    """Return what there is to say of the only port of dev."""
    (one,) = manager.ports.shown(manager.catalog.record("dev"))
    return one


async def test_ports_of_a_running_shed_are_changed_at_once(world: World) -> None:
    """What is taken away is closed, and its connections are cut; either all of a change is done or nothing."""
    first, second = free_port(), free_port()
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{first}:7"])
        reader, writer = await asyncio.open_connection("127.0.0.1", first)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        with pytest.raises(NotFoundError, match="port 1 is not published for shed 'dev'"):
            await manager.changes.set_ports("dev", ChangePorts(publish=[f"{second}:7"], unpublish=[1]))
        assert published(manager, "dev") == [first]
        assert await is_closed(second)
        await manager.changes.set_ports("dev", ChangePorts(publish=[f"{second}:7"], unpublish=[first]))
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert await is_closed(first)
        assert await echo(second, b"new") == b"new"
        writer.close()


async def test_a_stopped_shed_gets_its_port_when_it_starts(world: World) -> None:
    """A free one is chosen at once, and kept."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        await manager.changes.set_ports("dev", ChangePorts(publish=["7"]))
        (port,) = published(manager, "dev")
        assert await is_closed(port)
        await manager.start("dev", Progress())
        assert await echo(port, b"x") == b"x"


async def test_a_port_on_which_nothing_listens_in_the_shed_resets(world: World) -> None:
    """So that clients do not take it for an empty answer."""
    port = free_port()
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{port}:1"])
        assert await is_reset(port)


async def test_a_client_that_does_not_read_holds_nobody_up(world: World) -> None:
    """What pours into one connection stays within its buffers, and others are served."""
    pouring, echoing = free_port(), free_port()
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{pouring}:9", f"{echoing}:7"])
        with socket.create_connection(("127.0.0.1", pouring)):
            for _ in range(20):
                assert await echo(echoing, b"y" * 100_000) == b"y" * 100_000


async def test_a_shed_has_so_many_connections_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are reset at once; when one has ended, the next is served."""
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 3)
    port = free_port()
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{port}:7"])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in held:
            writer.write(b"x")
            await reader.readexactly(1)
        assert await is_reset(port)
        for _, writer in held:
            writer.close()

        async def served() -> bool:
            try:
                return await echo(port, b"z") == b"z"
            except ConnectionResetError:
                return False

        async with asyncio.timeout(30):
            while not await served():
                await asyncio.sleep(0.01)


async def test_many_connections_one_after_the_other_leave_nothing_behind(world: World) -> None:
    """Neither descriptors of the server nor tasks."""
    port = free_port()
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{port}:7"])
        await echo(port, b"x")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(100):
            assert await asyncio.gather(*(echo(port, b"many") for _ in range(5))) == [b"many"] * 5
        await until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 5, what="descriptors are given back")


async def test_the_servers_own_ports_are_nobodys(world: World) -> None:
    """Neither to publish over, on any address, nor to reach."""
    http, ssh = free_port(), free_port()
    world.with_settings(http_port=http, ssh_port=ssh)
    async with world.manager() as manager:
        for port in (http, ssh):
            for options in ({"ports": [f"{port}:7"]}, {"ports": [f"[::1]:{port}:7"]}, {"host_ports": [f"{port}:99"]}):
                with pytest.raises(ConflictError, match="this server's own"):
                    await create(manager, "dev", **options)
        await create(manager, "dev")
        with pytest.raises(ConflictError, match="this server's own"):
            await manager.changes.set_ports("dev", ChangePorts(host_ports=[str(http)]))


async def test_the_usual_ssh_port_is_the_servers_even_when_somebody_else_has_it(world: World) -> None:
    """The next start of the server may take it."""
    world.with_settings(ssh_port=None)
    async with world.manager() as manager:
        with pytest.raises(ConflictError, match="this server's own: ssh_port"):
            await create(manager, "dev", host_ports=["2222"])


async def test_no_shed_reaches_another_by_the_hosts_ports(world: World) -> None:
    """Whichever came first, and whether or not it runs."""
    port = free_port()
    async with world.manager() as manager:
        await create(manager, "one", ports=[f"{port}:7"])
        await manager.stop("one", Progress())
        with pytest.raises(ConflictError, match="leads to shed 'one' and would be open to shed 'two'"):
            await create(manager, "two", host_ports=[str(port)])
        await manager.changes.set_ports("one", ChangePorts(unpublish=[port]))
        await create(manager, "two", host_ports=[str(port)])
        with pytest.raises(ConflictError, match="leads to shed 'one' and would be open to shed 'two'"):
            await manager.changes.set_ports("one", ChangePorts(publish=[f"{port}:7"]))
        with pytest.raises(ConflictError, match="leads to shed 'x' and would be open to shed 'x'"):
            await create(manager, "x", ports=["4000:7"], host_ports=["4000"])


async def test_what_leads_to_a_shed_is_closed_to_all_sheds(world: World) -> None:
    """From the moment at which the port is taken: two who are asked at once do not miss each other."""
    first, second = free_port(), free_port()
    async with world.manager() as manager:
        await create(manager, "one", ports=[f"{first}:7"])
        assert manager.ports.is_closed(first)
        checked = portcheck.check
        calls: list[str] = []

        def meanwhile(name: str, *words: Any) -> None:
            checked(name, *words)
            calls.append(name)
            if len(calls) == 2:  # the last one before the port is taken: another request is saved now
                record = manager.catalog.record("one")
                save(world.instance("one"), record.with_ports(record.published, [HostPort(second, second)]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "check", meanwhile)
            with pytest.raises(ConflictError, match="would be open to shed 'one'"):
                await create(manager, "two", ports=[f"{second}:7"])
        assert not manager.ports.is_closed(second)
        assert await is_closed(second)
        await manager.stop("one", Progress())
        assert not manager.ports.is_closed(first)


async def test_a_free_port_is_one_that_nobody_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what another shed reaches, nor what one that is stopped has, although it is free now."""
    async with world.manager() as manager:
        await create(manager, "one", ports=["7"])
        await manager.stop("one", Progress())
        named = [*published(manager, "one"), free_port(), free_port()]
        await create(manager, "two", host_ports=[str(named[1])])
        order = iter([*named[:2], named[2]])
        bound = listeners._bound
        monkeypatch.setattr(listeners, "_bound", lambda address, port: bound(address, port or next(order)))
        await create(manager, "three", ports=["7"])
        assert published(manager, "three") == named[2:]


async def test_beyond_loopback_only_where_the_configuration_says_so(world: World) -> None:
    """Other machines get nothing by default, nor by an address that was not named there."""
    port = free_port()
    async with world.manager() as manager:
        with pytest.raises(UsageError, match=r"on this host's loopback, not on 0\.0\.0\.0"):
            await create(manager, "dev", ports=[f"0.0.0.0:{port}:7"])
    world.with_settings(publish_addresses=("127.0.0.2",))
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"127.0.0.2:{port}:7"])
        assert await echo(port, b"x", "127.0.0.2") == b"x"
        assert await is_closed(port)
        await manager.stop("dev", Progress())
    world.with_settings(publish_addresses=())
    async with world.manager() as manager:
        with pytest.raises(UsageError, match="on this host's loopback"):
            await manager.start("dev", Progress())


@pytest.mark.parametrize("options", [{"ports": ["1:7", "1:9"]}, {"host_ports": ["1:7", "2:7"]}, {"ports": ["7"] * 65}])
async def test_ports_that_contradict_each_other_are_refused(world: World, options: dict[str, list[str]]) -> None:
    """Before anything is made."""
    async with world.manager() as manager:
        with pytest.raises(UsageError) as caught:
            await create(manager, "dev", **options)
        assert caught.value.code == "INVALID_PORT"


async def test_a_vm_that_ended_by_itself_gives_its_ports_back(world: World) -> None:
    """The first client finds that out."""
    port = free_port()
    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{port}:7"])
        world.kill_machines()
        async with asyncio.timeout(60):
            while not await is_closed(port):
                await asyncio.sleep(0.01)
        assert not shown(manager).open


async def test_a_record_with_a_port_that_is_none_is_damaged(world: World) -> None:
    """It is told as such, rather than by a bug."""
    async with world.manager() as manager:
        await create(manager, "dev", ports=["7"])
        file = world.instance("dev") / "metadata.json"
        file.write_text(file.read_text().replace(":7", ":700000"))
        with pytest.raises(DataError, match="is not a port to publish"):
            manager.catalog.record("dev")


def test_who_listens_is_told_by_its_process() -> None:
    """And what nobody is known for is another program's."""
    with socket.create_server(("127.0.0.1", 0)) as mine:
        assert who_listens(mine.getsockname()[1]).startswith("process ")
    assert who_listens(mine.fileno() + 70_000) == "another program"
