"""Whether the host can carry one more VM: with the memory and the pressure of a made-up /proc, and real processes for
VMs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shed.backends.base import Disk, Machine
from shed.errors import ShedError
from shed.progress import Progress
from shed.sheds import headroom
from shed.sheds.admission import Admission
from support.servers.world import World, create
from support.waiting import until

GIB = 1 << 30


class Host:
    """A host's /proc: what is free of its memory, and how long its programs wait."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        (proc / "pressure").mkdir(parents=True)

    def memory(self, available: int, swap: int = 0) -> None:
        self._proc.joinpath("meminfo").write_text(
            f"MemTotal: 99999999 kB\nMemAvailable: {available >> 10} kB\nSwapFree: {swap >> 10} kB\n"
        )

    def waits(self, resource: str, some: float, full: float) -> None:
        lines = (
            f"{kind} avg10={value:.2f} avg60=0.00 avg300=0.00 total=1"
            for kind, value in (("some", some), ("full", full))
        )
        self._proc.joinpath("pressure", resource).write_text("\n".join(lines) + "\n")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with 4 GiB free, on which nobody waits; its VMs hold nothing."""
    made = Host(tmp_path / "proc")
    made.memory(4 * GIB)
    monkeypatch.setattr(headroom, "PROC", tmp_path / "proc")
    return made


def refused(world: World, name: str = "more", **options: object) -> ShedError:
    """Have one more shed refused, and return how; then nothing of it is left, and no VM was started for it."""

    async def main() -> ShedError:
        async with world.manager() as manager:
            before, started = world.traces(), len(world.backend.started)
            with pytest.raises(ShedError) as caught:
                await create(manager, name, **options)
            assert world.traces() == before
            assert len(world.backend.started) == started
            return caught.value

    return asyncio.run(main())


def made(world: World, *names: str, **options: object) -> None:
    """Make sheds, which must succeed."""

    async def main() -> None:
        async with world.manager() as manager:
            for name in names:
                assert (await create(manager, name, **options))["status"] == "running"

    asyncio.run(main())


def test_memory_is_promised_as_often_as_is_allowed_and_no_more(world: World, host: Host) -> None:
    """Four sheds of 2 GiB fit twice into 4 GiB; the fifth is refused, with the figures and the next step.  6aee119
    starts any number.
    """
    made(world, "a", "b", "c", "d", memory_mb=2048)
    error = refused(world, memory_mb=2048)
    assert (error.code, error.http_status) == ("HOST_BUSY", 503)
    assert (
        "would be promised 10 GiB of memory, and may be promised 8 GiB: 2 times (limits.memory_overcommit) the 4 GiB"
        in error.message
    )
    assert "shed stop NAME" in (error.hint or "")
    world.with_settings(memory_overcommit=2.5)
    made(world, "more", memory_mb=2048)


async def test_a_stopped_shed_gives_its_promise_back_and_force_goes_on(world: World, host: Host) -> None:
    """Stop frees what start needs; `force` does without, for a create and for a start."""
    async with world.manager() as manager:
        await create(manager, "a", memory_mb=8192)
        with pytest.raises(ShedError, match="cannot carry shed 'b'"):
            await create(manager, "b", memory_mb=8192)
        await manager.stop("a", Progress())
        await create(manager, "b", memory_mb=8192)
        with pytest.raises(ShedError, match="cannot carry shed 'a'"):
            await manager.start("a", Progress())
        with pytest.raises(ShedError, match="cannot carry shed 'a'"):
            await manager.guests.open_exec("a")
        assert (await manager.start("a", Progress(), force=True))["status"] == "running"
        assert (await create(manager, "c", memory_mb=8192, force=True))["status"] == "running"


async def test_two_at_once_are_not_both_let_in(world: World, host: Host) -> None:
    """What is on its way counts: of creates that start together, as many go on as fit."""

    async def main() -> tuple[object, ...]:
        async with world.manager() as manager:
            creates = (create(manager, f"s{number}", memory_mb=4096) for number in range(4))
            return tuple(await asyncio.gather(*creates, return_exceptions=True))

    results = await main()
    assert sorted(getattr(result, "code", "") for result in results) == ["", "", "HOST_BUSY", "HOST_BUSY"]


def test_swap_and_what_vms_have_already_count_as_room(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM that has filled its memory is not counted twice."""
    made(world, "full", memory_mb=4096)
    host.memory(1 * GIB)
    assert refused(world, memory_mb=4096).code == "HOST_BUSY"
    monkeypatch.setattr(headroom, "held", lambda pid: 3 * GIB if pid else 0)
    made(world, "second", memory_mb=4096)
    monkeypatch.setattr(headroom, "held", lambda _: 0)
    host.memory(1 * GIB, swap=6 * GIB)
    made(world, "third", memory_mb=4096)


async def test_spares_and_machines_that_are_saved_count(world: World, host: Host) -> None:
    """They have VMs, too: their memory is promised, though they are no sheds that run."""
    admission = Admission(world.paths, world.backend, world.settings)
    saved = world.paths.templates / "saved"
    world.backend.saved.saving[saved] = 3072
    for folder in (world.paths.spares / "7", saved):
        folder.mkdir()
        disk = world.blobs / "root"
        await world.backend.start(Machine("spare", 1, 1, disk, disk, (Disk(disk, read_only=True),), folder))
    load = admission.load()
    assert (load.running, load.promised_mb) == (0, world.settings.default_memory_mb + 3072)


def test_a_host_whose_memory_is_used_up_starts_nothing(world: World, host: Host) -> None:
    """However little is asked for."""
    host.memory(100 << 20, swap=64 * GIB)
    assert (
        "100 MiB of its memory are free, 256 MiB are to stay free (limits.memory_reserve)"
        in refused(world, memory_mb=128).message
    )


@pytest.mark.parametrize(
    ("resource", "some", "full", "settings", "code"),
    [
        ("memory", 60.0, 30.0, {}, "HOST_BUSY"),
        ("memory", 60.0, 20.0, {}, ""),
        ("memory", 60.0, 30.0, {"memory_pressure": 0}, ""),
        ("cpu", 100.0, 0.0, {}, ""),
        ("cpu", 100.0, 0.0, {"cpu_pressure": 90}, "HOST_BUSY"),
        ("io", 90.0, 80.0, {}, ""),
        ("io", 90.0, 80.0, {"io_pressure": 70}, "HOST_BUSY"),
    ],
)
def test_pressure_refuses_where_a_limit_says_so(
    world: World, host: Host, resource: str, some: float, full: float, settings: dict[str, int], code: str
) -> None:
    """By default that of memory alone: emulated guests keep a small machine's processors busy, and that is no
    reason.
    """
    host.waits(resource, some, full)
    world.with_settings(**settings)
    if code:
        error = refused(world)
        assert (error.code, f"(limits.{resource}_pressure)" in error.message) == (code, True)
    else:
        made(world, "fine")


def test_there_are_no_more_sheds_than_may_be(world: World, host: Host) -> None:
    """In all, and at once; `force` changes neither."""
    world.with_settings(max_sheds=2, max_running=1)
    made(world, "a", memory_mb=128)
    assert "1 sheds run, and 1 may (limits.max_running)" in refused(world, memory_mb=128, force=True).message

    async def stop() -> None:
        async with world.manager() as manager:
            await manager.stop("a", Progress())

    asyncio.run(stop())
    made(world, "b", memory_mb=128)
    error = refused(world, memory_mb=128, force=True)
    assert (error.code, "there are 2 sheds, and 2 may be (limits.max_sheds)" in error.message) == (
        "TOO_MANY_SHEDS",
        True,
    )


def test_of_creates_at_once_no_more_go_on_than_sheds_may_be(world: World, host: Host) -> None:
    """Those that are on their way have no folder yet, and count."""
    world.with_settings(max_sheds=2)

    async def main() -> tuple[object, ...]:
        async with world.manager() as manager:
            creates = (create(manager, f"s{number}", memory_mb=128) for number in range(5))
            return tuple(await asyncio.gather(*creates, return_exceptions=True))

    assert sorted(getattr(result, "code", "") for result in asyncio.run(main())) == ["", "", *["TOO_MANY_SHEDS"] * 3]


def test_space_that_is_to_stay_free_is_kept_and_told(world: World, host: Host) -> None:
    """No start below the reserve; running sheds are told in the list."""
    made(world, "a", memory_mb=128)
    world.with_settings(start_reserve=1 << 50)
    error = refused(world, memory_mb=128, force=True)
    assert (error.code, error.http_status) == ("DISK_RESERVE", 507)
    assert "limits.start_reserve" in (error.hint or "")

    async def listed() -> str:
        async with world.manager() as manager:
            return str(manager.catalog.get("a")["detail"])

    assert "it may soon stand still" in asyncio.run(listed())


def test_a_kernel_that_says_nothing_refuses_nothing(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither pressure nor memory: a start goes on, and the log says so."""
    monkeypatch.setattr(headroom, "PROC", tmp_path / "nothing")
    made(world, "fine")


async def test_nothing_is_made_that_nobody_waits_for_on_a_full_host(
    world: World, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither templates nor spares, while a shed would be refused.  6aee119 makes them in any case."""
    world.backend.saved.possible = True
    world.with_settings(warm_spares=1)
    host.memory(100 << 20)
    async with world.manager():
        await until(lambda: "cannot carry a template's VM now" in caplog.text)
        assert (world.backend.saved.tried, world.backend.started) == (0, [])
