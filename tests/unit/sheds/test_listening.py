"""What a guest says of its listening sockets: it may say anything."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import strategies as st

from shed.api.ports import ListeningPort
from shed.errors import BackendError, ShedError
from shed.progress import Progress
from shed.sheds.listening import MOST_PORTS, listening, parse
from support.fuzz import fuzz
from support.servers.world import World, create

LINE = "   {}: {}:{:04X} {}:0000 0A 00000000:00000000 00:00000000 00000000  0  0 19 1 0000000000000000 100 0 0 10 0\n"
ANY4, ANY6 = "0" * 8, "0" * 32


def test_what_this_machine_says() -> None:
    """As its kernel writes it, by IPv4 and IPv6."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("::1", 0), family=socket.AF_INET6) as two:
        tables = "".join(Path(table).read_text() for table in ("/proc/net/tcp", "/proc/net/tcp6"))
        found = parse("".join(line for line in tables.splitlines(keepends=True) if " 0A " in line))
        ports = {each.port: each.addresses for each in found}
        assert ports[one.getsockname()[1]] == ["127.0.0.1"]
        assert ports[two.getsockname()[1]] == ["::1"]


def test_a_port_is_one_row() -> None:
    """With all its addresses, and the lowest first."""
    text = LINE.format(0, ANY4, 8080, ANY4) + LINE.format(1, ANY6, 8080, ANY6) + LINE.format(2, "0100007F", 22, ANY4)
    assert parse(text) == [
        ListeningPort(port=22, addresses=["127.0.0.1"]),
        ListeningPort(port=8080, addresses=["0.0.0.0", "::"]),
    ]
    assert parse("") == []


@pytest.mark.parametrize(
    "text",
    [
        "x\n",
        "\x1b[2J\n",
        "   0: 0100007F:0016 00000000:0000 01 \n",
        "   0: 0100007F:00016 00000000:0000 0A \n",
        "0" * 999,
    ],
)
def test_what_makes_no_sense(text: str) -> None:
    """Is an error, of which no terminal obeys a part."""
    with pytest.raises(BackendError) as caught:
        parse(text)
    assert caught.value.code == "AGENT_PROTOCOL"
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 300


def test_more_than_anybody_reads() -> None:
    """The lowest ports are shown."""
    text = "".join(LINE.format(port, ANY4, port, ANY4) for port in range(1, 5000))
    assert [each.port for each in parse(text)] == list(range(1, MOST_PORTS + 1))


async def test_a_shed_is_asked(tmp_path: Path) -> None:
    """One that runs says what its kernel does; one that does not is not started for it."""
    world = World(tmp_path).prepare()
    async with world.manager() as manager:
        try:
            await create(manager, "dev", image="base")
            with socket.create_server(("127.0.0.1", 0)) as one:  # the fake guest's kernel is this machine's
                found = {each.port: each.addresses for each in await listening(manager.guests, "dev")}
                assert found[one.getsockname()[1]] == ["127.0.0.1"]
            await manager.stop("dev", Progress())
            with pytest.raises(ShedError) as caught:
                await listening(manager.guests, "dev")
            assert not isinstance(caught.value, BackendError)
        finally:
            world.kill_machines()


def test_any_text_at_all() -> None:
    """Is understood or refused."""

    def check(text: str) -> None:
        try:
            found = parse(text)
        except BackendError:
            return
        assert all(0 <= each.port < 65536 for each in found)

    fuzz(check, st.text(max_size=200) | st.from_regex(r"( *\d: [0-9A-F]{8}:[0-9A-F]{4} 0+:0000 0A .{0,9}\n){0,3}"))
