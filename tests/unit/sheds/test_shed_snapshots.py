"""What a stopped shed has written is kept, and others begin with it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from shed.api.making import UpdateShed
from shed.errors import ConflictError, DataError, NotFoundError, ShedError, StorageError, UsageError
from shed.oci.digest import Digest
from shed.progress import BytesEvent, Event, Progress, Stop
from shed.sheds import pins, upper
from shed.sheds.manager import Manager
from support.servers.killed import killed_at
from support.servers.world import DIGEST, GIB, World, create

MARK = b"what the guest wrote"
"""As long as what is written in its place."""


async def stopped(world: World, manager: Manager, name: str = "dev", **options: object) -> Path:
    """Make a stopped shed with `MARK` in its writable layer, and return that."""
    await create(manager, name, upper_size_bytes=GIB, **options)
    await manager.stop(name, Progress())
    layer = world.paths.uppers / name / "upper.ext4"
    write(layer, MARK)
    return layer


def write(layer: Path, data: bytes) -> None:
    """Write to a place of a writable layer that its file system does not use."""
    with layer.open("r+b") as file:
        file.seek(GIB - 4096)
        file.write(data)


def read(layer: Path) -> bytes:
    """Return what is in that place."""
    with layer.open("rb") as file:
        file.seek(GIB - 4096)
        return file.read(len(MARK))


async def test_a_shed_begins_with_a_snapshot(world: World) -> None:
    """It has the files, image and rules of the source, which goes on by itself, as does the snapshot."""
    async with world.manager() as manager:
        layer = await stopped(world, manager, egress=["offline"])
        made = await manager.snapshots.create("dev", None, "before the upgrade", Progress())
        assert made["name"] == "dev-1"
        assert (made["source_shed"], made["source_image"], made["lower_digest"]) == ("dev", "base", DIGEST)
        assert (made["size_bytes"], made["comment"], made["egress"]) == (GIB, "before the upgrade", ["offline"])
        write(layer, b"other")
        one = await create(manager, "one", from_snapshot="dev-1")
        assert (one["image"], one["image_digest"], one["upper_size_bytes"]) == ("base", DIGEST, GIB)
        assert one["egress"] == ["offline"]
        assert read(world.paths.uppers / "one/upper.ext4") == MARK
        await manager.delete("dev", force=True, progress=Progress())
        two = await create(manager, "two", from_snapshot="dev-1", upper_size_bytes=2 * GIB, egress=[])
        assert two["upper_size_bytes"] == (world.paths.uppers / "two/upper.ext4").stat().st_size == 2 * GIB
        assert two["egress"] == []
        assert read(world.paths.uppers / "two/upper.ext4") == MARK
        manager.snapshots.store.remove("dev-1")
        assert read(world.paths.uppers / "one/upper.ext4") == MARK
        with pytest.raises(NotFoundError) as caught:
            await create(manager, "three", from_snapshot="dev-1")
        assert caught.value.code == "SNAPSHOT_NOT_FOUND"
        assert "three" not in str(world.traces())


async def test_names_of_snapshots(world: World) -> None:
    """One that is not given is free; one that is taken is refused, and what has it stays."""
    async with world.manager() as manager:
        layer = await stopped(world, manager)
        for name in (None, "kept", None):
            await manager.snapshots.create("dev", name, "", Progress())
        assert manager.snapshots.store.names() == ["dev-1", "dev-2", "kept"]
        write(layer, b"other")
        with pytest.raises(ConflictError) as caught:
            await manager.snapshots.create("dev", "kept", "", Progress())
        assert caught.value.code == "SNAPSHOT_ALREADY_EXISTS"
        assert read(manager.snapshots.store.upper("kept")) == MARK
        for name in ("..", ".new", "a/b", "", "x" * 64, "a\n"):
            with pytest.raises(UsageError, match="invalid snapshot name") if name else pytest.raises(ShedError):
                await manager.snapshots.create("dev", name or "-", "", Progress())
        assert sorted(path.name for path in world.paths.snapshots.iterdir()) == ["dev-1", "dev-2", "kept"]


async def test_what_a_snapshot_cannot_be_made_of(world: World) -> None:
    """A shed that there is not, and one that runs where the backend cannot keep it."""
    world.backend.capabilities = replace(world.backend.capabilities, moments=None)
    async with world.manager() as manager:
        with pytest.raises(NotFoundError):
            await manager.snapshots.create("other", None, "", Progress())
        await create(manager, "dev", upper_size_bytes=GIB)
        with pytest.raises(ConflictError) as caught:
            await manager.snapshots.create("dev", None, "", Progress())
        assert caught.value.code == "SNAPSHOT_SOURCE_RUNNING"
        assert "shed stop dev" in caught.value.next_step
        assert list(world.paths.snapshots.iterdir()) == []


async def test_what_does_not_go_with_a_snapshot(world: World) -> None:
    """Another image, less room than it has, another backend."""
    async with world.manager() as manager:
        await create(manager, "dev", upper_size_bytes=2 * GIB)
        await manager.stop("dev", Progress())
        await manager.snapshots.create("dev", "kept", "", Progress())
        with pytest.raises(UsageError, match="from an image or from a snapshot"):
            await create(manager, "one", from_snapshot="kept", image="base")
        with pytest.raises(UsageError, match=r"1 GiB cannot hold the snapshot, which has 2 GiB"):
            await create(manager, "one", from_snapshot="kept", upper_size_bytes=GIB)
        record = world.paths.snapshots / "kept/snapshot.json"
        values = json.loads(record.read_text())
        record.chmod(0o600)
        record.write_text(json.dumps({**values, "backend": "vz"}))
        with pytest.raises(UsageError, match="of the backend vz"):
            await create(manager, "one", from_snapshot="kept")
        assert world.traces() == {"instances/dev", "uppers/dev"}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"name": "other"},
        {"size_bytes": "much"},
        {"lower_digest": 5},
        {"egress": [1]},
        {"egress": "internet"},
        {"source_shed": None},
        None,
    ],
)
async def test_a_damaged_snapshot_is_told_and_can_be_removed(world: World, change: dict[str, object] | None) -> None:
    """The others are listed; nothing is made of it."""
    async with world.manager() as manager:
        await stopped(world, manager)
        for name in ("good", "bad"):
            await manager.snapshots.create("dev", name, "", Progress())
        record = world.paths.snapshots / "bad/snapshot.json"
        values = json.loads(record.read_text())
        record.unlink()
        record.write_text("{" if change is None else json.dumps({**values, **change}))
        found, (warning,) = manager.snapshots.store.all()
        assert [each.name for each in found] == ["good"]
        assert "'bad'" in warning
        with pytest.raises(DataError) as caught:
            await create(manager, "one", from_snapshot="bad")
        assert caught.value.code == "SNAPSHOT_DAMAGED"
        manager.snapshots.store.remove("bad")
        assert manager.snapshots.store.names() == ["good"]


async def test_records_of_the_go_implementation_are_read(world: World) -> None:
    """They lack what it does not know: such a shed has the server's egress profiles."""
    async with world.manager() as manager:
        await stopped(world, manager, egress=["offline"])
        await manager.snapshots.create("dev", "kept", "", Progress())
        record = world.paths.snapshots / "kept/snapshot.json"
        values = json.loads(record.read_text())
        assert values["version"] == 2
        del values["egress"]
        record.unlink()
        record.write_text(json.dumps(values))
        assert (await create(manager, "one", from_snapshot="kept"))["egress"] == ["internet"]


async def test_a_snapshot_keeps_its_image(world: World) -> None:
    """Also when the shed is gone."""
    async with world.manager() as manager:
        await stopped(world, manager)
        await manager.snapshots.create("dev", "kept", "", Progress())
        await manager.delete("dev", force=True, progress=Progress())
    (pin,) = pins.pins(world.paths)
    assert (pin.digest, pin.holder) == (Digest(DIGEST), "snapshot 'kept'")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Neither a half-made snapshot nor another shed."""
    async with world.manager() as manager:
        layer = await stopped(world, manager)
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise OSError(error, os.strerror(error))

            patch.setattr(upper, "clone_file", fail)
            with pytest.raises(StorageError, match=os.strerror(error)):
                await manager.snapshots.create("dev", "kept", "", Progress())
        assert list(world.paths.snapshots.iterdir()) == []
        assert read(layer) == MARK
        await manager.snapshots.create("dev", "kept", "", Progress())


async def test_a_copy_tells_how_far_it_is_and_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system shares no extents, and the client has gone."""
    monkeypatch.setattr("shed.fsutil.FICLONE", 0)
    async with world.manager() as manager:
        await stopped(world, manager)
        events: list[Event] = []
        await manager.snapshots.create("dev", "kept", "", Progress(events.append))
        (*_, last) = [event for event in events if isinstance(event, BytesEvent)]
        assert last.current > len(MARK)
        assert last.total is not None
        assert last.current <= last.total
        abandoned = Stop()
        with pytest.raises(ShedError):
            await manager.snapshots.create(
                "dev", "other", "", Progress(lambda event: abandoned.set(), abandoned=abandoned)
            )
        assert sorted(path.name for path in world.paths.snapshots.iterdir()) == ["kept"]


async def test_a_shed_goes_back(world: World) -> None:
    """To the snapshot that is named, or its last one; what it had is kept, unless it is not wanted."""
    async with world.manager() as manager:
        layer = await stopped(world, manager)
        snapshots = manager.snapshots
        await snapshots.create("dev", "first", "", Progress())
        write(layer, b"second state of it..")
        await snapshots.create("dev", "second", "", Progress())
        write(layer, b"what was lost.......")
        await snapshots.rollback("dev", "first", discard=False, progress=Progress())
        assert read(layer) == MARK
        assert layer.stat().st_mode & 0o777 == 0o600
        assert read(snapshots.store.upper("dev-1")) == b"what was lost......."
        assert snapshots.store.load("dev-1").comment == "before the rollback to first"
        await manager.update("dev", UpdateShed(upper_size_bytes=2 * GIB), Progress())
        await snapshots.rollback("dev", "second", discard=True, progress=Progress())
        assert snapshots.store.names() == ["dev-1", "first", "second"]
        assert read(layer) == b"second state of it.."
        assert layer.stat().st_size == manager.catalog.record("dev").upper_size_bytes == 2 * GIB
        await manager.start("dev", Progress())
        for discard in (True, False):
            with pytest.raises(ConflictError) as caught:
                await snapshots.rollback("dev", "first", discard=discard, progress=Progress())
            assert caught.value.code == "SHED_NOT_STOPPED"
        assert snapshots.store.names() == ["dev-1", "first", "second"]


async def test_without_a_name_it_is_the_last_snapshot_of_the_shed(world: World) -> None:
    """Not one of another shed; and there may be none."""
    async with world.manager() as manager:
        layer = await stopped(world, manager)
        with pytest.raises(NotFoundError, match="no snapshot of shed 'dev'"):
            await manager.snapshots.rollback("dev", None, discard=False, progress=Progress())
        await manager.snapshots.create("dev", None, "", Progress())
        await stopped(world, manager, "other")
        await manager.snapshots.create("other", None, "", Progress())
        write(layer, b"other")
        await manager.snapshots.rollback("dev", None, discard=True, progress=Progress())
        assert read(layer) == MARK


async def test_a_snapshot_of_another_image_is_refused(world: World) -> None:
    """Its files would be over those of an image that they do not fit."""
    async with world.manager() as manager:
        layer = await stopped(world, manager)
        await manager.snapshots.create("dev", "kept", "", Progress())
        record = world.paths.snapshots / "kept/snapshot.json"
        text = record.read_text().replace(DIGEST, DIGEST.replace("ab", "cd"))
        record.unlink()
        record.write_text(text)
        write(layer, b"what is to stay.....")
        with pytest.raises(ConflictError) as caught:
            await manager.snapshots.rollback("dev", "kept", discard=True, progress=Progress())
        assert caught.value.code == "SNAPSHOT_OF_OTHER_IMAGE"
        assert read(layer) == b"what is to stay....."


async def test_a_shed_begins_anew(world: World) -> None:
    """With an empty writable layer of the size that it had; only when it is stopped."""
    async with world.manager() as manager:
        layer = await stopped(world, manager)
        await manager.snapshots.reset("dev", Progress())
        assert read(layer) == bytes(len(MARK))
        assert layer.stat().st_size == GIB
        await manager.start("dev", Progress())
        with pytest.raises(ConflictError, match="is running"):
            await manager.snapshots.reset("dev", Progress())


async def test_a_full_disk_leaves_a_shed_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was to come in place of what it had written."""
    async with world.manager() as manager:
        layer = await stopped(world, manager)
        await manager.snapshots.create("dev", "kept", "", Progress())
        write(layer, b"what is to stay.....")
        before = sorted(path.name for path in layer.parent.iterdir())

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(upper, "clone_file", fail)
        for work in (
            manager.snapshots.rollback("dev", "kept", discard=True, progress=Progress()),
            manager.snapshots.rollback("dev", "kept", discard=False, progress=Progress()),
            manager.snapshots.reset("dev", Progress()),
        ):
            with pytest.raises(StorageError, match="No space"):
                await work
        assert read(layer) == b"what is to stay....."
        assert sorted(path.name for path in layer.parent.iterdir()) == before
        assert manager.snapshots.store.names() == ["kept"]


def test_a_rollback_that_is_cut_short_leaves_one_state_or_the_other(world: World) -> None:
    """Whichever step the server is killed at; what the shed had is lost at none, unless it was not wanted."""
    world.with_settings(warm_start=False)
    lost = b"what would be lost.."

    async def begin() -> None:
        async with world.manager() as manager:
            layer = await stopped(world, manager)
            await manager.snapshots.create("dev", "kept", "", Progress())
            write(layer, lost)

    async def back(manager: Manager) -> None:
        await manager.snapshots.rollback("dev", "kept", discard=False, progress=Progress())

    async def look() -> bytes:
        async with world.manager() as manager:
            store = manager.snapshots.store
            now = read(world.paths.uppers / "dev/upper.ext4")
            others = [read(store.upper(name)) for name in store.names() if name != "kept"]
            assert now == lost or lost in others
            assert manager.catalog.get("dev")["status"] == "stopped"
            return now

    asyncio.run(begin())
    seen = []
    for step in range(1, 100):
        done = killed_at(step, world, back, warm=False)
        seen.append(asyncio.run(look()))
        if done or seen[-1] == MARK:
            break
    assert seen[-1] == MARK
    assert lost in seen


def test_a_server_that_is_killed_leaves_all_or_nothing(world: World) -> None:
    """Before each step of making a snapshot, and of removing one: the next server lists it whole, or not at all."""
    world.with_settings(warm_start=False)

    async def begin() -> None:
        async with world.manager() as manager:
            await stopped(world, manager)

    async def make(manager: Manager) -> None:
        await manager.snapshots.create("dev", "kept", "", Progress())

    async def remove(manager: Manager) -> None:
        manager.snapshots.store.remove("kept")

    async def look() -> list[str]:
        async with world.manager() as manager:
            found, warnings = manager.snapshots.store.all()
            assert warnings == []
            names = [snapshot.name for snapshot in found]
            assert sorted(path.name for path in world.paths.snapshots.glob("*")) == names
            assert not names or read(manager.snapshots.store.upper("kept")) == MARK
            return names

    asyncio.run(begin())
    for work, begins, ends in ((make, [], ["kept"]), (remove, ["kept"], [])):
        seen = []
        for step in range(1, 100):
            done = killed_at(step, world, work, warm=False)
            seen.append(asyncio.run(look()))
            if done or seen[-1] == ends:
                break
        assert seen[-1] == ends
        assert begins in seen


async def test_what_another_server_makes_at_the_moment_stays(world: World) -> None:
    """It is locked."""
    for name in (".kept.abc.new", ".kept.def.gone", ".kept.ghi.new"):
        (world.paths.snapshots / name).mkdir(parents=True)
    held = os.open(world.paths.snapshots / ".kept.ghi.new", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        async with world.manager():
            assert [path.name for path in world.paths.snapshots.iterdir()] == [".kept.ghi.new"]
    finally:
        os.close(held)
