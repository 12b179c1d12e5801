"""What the relay is told: what was saved last, whoever comes first."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shed.backends.base import Liveness
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.egress.network.netns import NoNetworkError
from shed.egress.orders import Orders
from shed.errors import UnavailableError
from shed.progress import Event, Progress, WarningEvent
from shed.sheds.changes import Changes
from shed.sheds.egress import Egress
from shed.sheds.events import Events
from shed.sheds.folders import Folders
from shed.sheds.metadata import Record, save
from shed.sheds.terms import Terms
from support.waiting import until

RECORD = Record(
    name="dev", image="busybox", lower_digest="sha256:" + "0" * 64, cpus=1, memory_mb=256, backend="qemu",
    created_at="2026-01-01T00:00:00Z", upper_size_bytes=1 << 30, egress=["internet"],
)  # fmt: skip
CLOSED = 8080
"""A port of the host that is the server's."""


class Netd:
    """A relay that notes what it is told."""

    def __init__(self, *known: str) -> None:
        self.known = dict.fromkeys(known, 0)
        self.told: list[tuple[str, list[str]]] = []
        self.orders = Orders()

    def open(self, shed: str, orders: Orders, _sockets: object) -> None:
        """Note the profiles."""
        self.told.append((shed, [profile.name for profile in orders.profiles]))

    def rule(self, shed: str, orders: Orders) -> int:
        """Note the profiles."""
        self.orders = orders
        self.told.append((shed, [profile.name for profile in orders.profiles]))
        return 0

    def sheds(self) -> dict[str, int]:
        """Return what it relays for."""
        return self.known

    def renew(self) -> bool:
        """It is of this version."""
        return False

    def watch(self) -> list[socket.socket]:
        """Return a connection that does not end."""
        ours, self.theirs = socket.socketpair()
        return [ours]


@pytest.fixture
def saved(tmp_path: Path) -> Paths:
    """The folders of a server whose shed dev is offline, by its record."""
    paths = Paths(tmp_path / "data", tmp_path / "run")
    (paths.instances / "dev").mkdir(parents=True)
    save(paths.instances / "dev", replace(RECORD, egress=["offline"]))
    return paths


def egress(paths: Paths, netd: Netd, monkeypatch: pytest.MonkeyPatch) -> Egress:
    """Return what rules sheds on a backend that has networks."""
    networks: Any = SimpleNamespace(problem=lambda: None, sockets=lambda _: [])
    backend: Any = SimpleNamespace(capabilities=SimpleNamespace(networks=networks))
    made = Egress(
        paths,
        backend,
        Settings(),
        Terms(paths, Settings()),
        lambda: [(RECORD, paths.instances / "dev")],
        closed=lambda port: port == CLOSED,
        events=Events(),
    )
    monkeypatch.setattr(made, "_netd", netd)
    return made


async def test_a_shed_without_a_network_says_so(saved: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts it is told, with what to do about it, and not the log alone."""
    heard: list[Event] = []
    ruled = egress(saved, Netd(), monkeypatch)
    problem = NoNetworkError("it cannot be made", hint="mend it")
    monkeypatch.setattr(ruled, "_networks", SimpleNamespace(problem=lambda: problem))
    await ruled.begin(RECORD, saved.instances / "dev", Progress(heard.append))
    assert heard == [WarningEvent("shed 'dev' has no network: it cannot be made; mend it")]


async def test_an_older_record_opens_nothing(saved: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who read the record before others changed it does not bring back what it said."""
    netd = Netd()
    ruled = egress(saved, netd, monkeypatch)
    await ruled.change(RECORD)
    await ruled.begin(RECORD, saved.instances / "dev", Progress())
    assert netd.told == [("dev", ["offline"])] * 2


async def test_a_profile_holds_for_all_although_it_fails_for_one(saved: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first shed has no relay; the second one is ruled by the new profile, and the caller is told of the first."""

    class Failing(Netd):
        def rule(self, shed: str, orders: Orders) -> int:
            if shed == "dev":
                raise UnavailableError("the network relay refuses: 'dev'", code="NO_RELAY")
            return super().rule(shed, orders)

    netd = Failing()
    ruled = egress(saved, netd, monkeypatch)
    (saved.instances / "two").mkdir()
    save(saved.instances / "two", replace(RECORD, name="two"))
    running = [(replace(RECORD, name=name), saved.instances / name) for name in ("dev", "two")]
    catalog: Any = SimpleNamespace(running=lambda: running)
    backend: Any = SimpleNamespace(liveness=lambda _: Liveness.NOT_OURS)

    @contextlib.asynccontextmanager
    async def hold(name: str, _: str) -> AsyncIterator[tuple[Folders, Any]]:
        yield Folders(saved, name), None

    with pytest.raises(UnavailableError):
        changes = Changes(hold, backend, catalog, Terms(saved, Settings()), ruled, cast(Any, None))
        await changes.profile_changed("internet")
    assert netd.told == [("two", ["internet"])]


async def test_a_slow_secret_holds_up_its_own_shed_alone(saved: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that prints its value may take half a minute; other sheds are ruled meanwhile."""
    going, printed = threading.Event(), threading.Event()

    class Slow(Netd):
        def rule(self, shed: str, orders: Orders) -> int:
            if shed == "dev":
                going.set()
                assert printed.wait(60)
            return super().rule(shed, orders)

    netd = Slow()
    ruled = egress(saved, netd, monkeypatch)
    (saved.instances / "two").mkdir()
    save(saved.instances / "two", replace(RECORD, name="two"))
    slow = asyncio.ensure_future(ruled.change(RECORD))
    await asyncio.to_thread(going.wait, 60)
    async with asyncio.timeout(60):
        await ruled.change(replace(RECORD, name="two"))
    printed.set()
    await slow
    assert netd.told == [("two", ["internet"]), ("dev", ["offline"])]


async def test_a_relay_that_ran_on_is_told_what_was_saved(saved: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may end between saving rules and telling the relay; the next one tells it."""
    netd = Netd("dev")
    task = asyncio.ensure_future(egress(saved, netd, monkeypatch).keep())
    try:
        await until(lambda: netd.told, what="the relay is told")
        assert netd.told == [("dev", ["offline"])]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        netd.theirs.close()


async def test_no_order_opens_a_port_that_is_the_servers(saved: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the record has: the configuration may have changed since it was written."""
    netd = Netd()
    opened = replace(RECORD, host_ports=["5432:5432", f"{CLOSED}:9", "5433:10"])
    save(saved.instances / "dev", opened)
    await egress(saved, netd, monkeypatch).change(opened)
    assert [port.port for port in netd.orders.host_ports] == [5432, 5433]
