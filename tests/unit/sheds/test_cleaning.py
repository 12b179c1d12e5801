"""What `system prune` spares when things change under its hands."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shed.backends.base import Liveness
from shed.backends.interface import StoredTemplate, Template
from shed.backends.qemu.templates import RECORD, Limits, TemplateStore
from shed.errors import DataError
from shed.oci.digest import digest_bytes, hex_of
from shed.oci.store import LayoutStore
from shed.progress import Event, Progress, Stop, WarningEvent
from shed.sheds import metadata
from shed.sheds.cleaning import DEFAULT_SCOPES, SCOPES, Cleaner
from shed.sheds.manager import Manager
from shed.sheds.pins import SNAPSHOT, open_images
from shed.sheds.snapshotstore import Snapshot
from support.images.runtimes import small_runtime
from support.images.stored import put_image, put_shed
from support.servers.fake_backend import FakeBackend, FakeTemplates
from support.servers.world import World, create
from support.waiting import until

HOUR = 3600.0


@pytest.fixture
def store(world: World) -> LayoutStore:
    """The world's store, with an image that is called mine."""
    store = LayoutStore(world.paths.images)
    put_image(store, "mine", "mine")
    return store


def age(folder: Path, hours: float = 100) -> Path:
    """Have the shed in `folder` look as if it had been stopped for so long."""
    then = time.time() - hours * HOUR
    os.utime(folder / metadata.METADATA, (then, then))
    return folder


def clean(world: World, manager: Manager, events: list[Event], **options: Any) -> Any:
    """Clean as the server does; `events` gets what is reported."""
    cleaner = Cleaner(world.paths, manager, open_images(world.paths))
    return cleaner.clean(
        options.get("scopes", DEFAULT_SCOPES),
        until=options.get("until", 72 * HOUR),
        dry_run=options.get("dry_run", False),
        progress=Progress(events.append),
    )


async def test_a_shed_that_is_used_between_plan_and_deletion_stays(world: World, store: LayoutStore) -> None:
    """And so does its image, of which the plan had it that nobody needs it."""
    image, other = put_image(store, "image"), put_image(store, "other")
    used, unused = (
        age(put_shed(world.paths, name, digest)) for name, digest in (("a-used", image), ("b-unused", other))
    )
    events: list[Event] = []

    async def main() -> dict[str, Any]:
        async with world.manager() as manager:
            cleaner = Cleaner(world.paths, manager, open_images(world.paths))
            plan = cleaner._plan(DEFAULT_SCOPES, 72 * HOUR, 0)
            assert [shed.name for shed in plan.sheds] == ["a-used", "b-unused"]
            age(used, 1)
            done = await cleaner._execute(plan, 0, Progress(events.append))
            return done.to_wire()

    answer = await main()
    assert [row["name"] for row in answer["instances"]] == ["b-unused"]
    assert WarningEvent("shed 'a-used' was used meanwhile, and stays") in events
    assert used.exists()
    assert not unused.exists()
    assert (store.has(image), store.has(other)) == (True, False)
    assert image not in {row["digest"] for row in answer["images"]}


async def test_running_and_doubtful_sheds_stay(
    world: World, store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old their records are."""
    async with world.manager() as manager, asyncio.timeout(60):
        await create(manager, "dev", image="mine")
        age(world.instance("dev"))
        assert (await clean(world, manager, []))["instances"] == []
        await manager.stop("dev", Progress())
        assert (await clean(world, manager, []))["instances"] == []  # stopping wrote its record
        age(world.instance("dev"))
        with monkeypatch.context() as patch:
            patch.setattr(world.backend, "liveness", lambda folder: Liveness.UNKNOWN)
            assert (await clean(world, manager, []))["instances"] == []
        preview = await clean(world, manager, [], dry_run=True)
        assert [row["name"] for row in preview["instances"]] == ["dev"]
        assert world.instance("dev").exists()
        answer = await clean(world, manager, [])
        assert answer == {**preview, "dry_run": False}
        assert world.traces() == set()


async def test_a_dry_run_says_what_a_real_one_does(world: World, store: LayoutStore) -> None:
    """The image of a shed that goes, goes too, and the templates of its runtime with it; in the preview as well."""
    image = put_image(store, "image", shared="its own kit")
    age(put_shed(world.paths, "old", image))
    runtime = hex_of(digest_bytes(small_runtime("its own kit")))
    templates = [world.paths.templates / f"upper-{runtime}{size}.ext4" for size in ("-5G", "")]
    for template in templates:
        template.touch()
        os.utime(template, (1, 1))

    async def main() -> None:
        async with world.manager() as manager:
            preview = await clean(world, manager, [], dry_run=True)
            assert store.has(image)
            assert [row["name"] for row in preview["orphans"]] == [str(template) for template in templates]
            assert len([row for row in preview["images"] if row["kind"] == "image"]) == 1
            assert await clean(world, manager, []) == {**preview, "dry_run": False}
            assert not any(template.exists() for template in templates)
            assert (await clean(world, manager, []))["size_bytes"] == 0

    await main()


async def test_a_record_in_doubt_stops_it_before_it_begins(world: World, store: LayoutStore) -> None:
    """The old shed beside it stays; without images it is not asked for, and the damaged shed stays in any case."""
    old = age(put_shed(world.paths, "old", put_image(store, "image")))
    broken = age(put_shed(world.paths, "broken", "x"))
    (broken / metadata.METADATA).write_text("{")
    age(broken)
    async with world.manager() as manager:
        for dry_run in (True, False):
            with pytest.raises(DataError, match="broken"):
                await clean(world, manager, [], dry_run=dry_run)
        assert old.exists()
        answer = await clean(world, manager, [], scopes=frozenset({"instances"}))
        assert [row["name"] for row in answer["instances"]] == ["old"]
        assert broken.exists()


@pytest.mark.parametrize("name", ["console.log", "qemu.log"])
async def test_a_log_without_a_keeper_is_cut(world: World, name: str) -> None:
    """One that QEMU itself appends to, as it did to consoles before there were keepers, is cut by the server that
    runs.
    """
    log = world.instance("old") / name
    log.parent.mkdir()
    log.write_bytes(b"a" * (17 << 20) + b"the end\n")
    with log.open("ab", buffering=0) as vm:
        async with world.manager():
            await until(lambda: log.stat().st_size == 5 << 20)
        vm.write(b"and on\n")
    assert log.read_bytes().endswith(b"aathe end\nand on\n")


class OnDisk(FakeTemplates):
    """Templates whose files are as QEMU's, and are found and removed by its code."""

    def __init__(self, backend: FakeBackend, folder: Path) -> None:
        super().__init__(backend)
        self.store = TemplateStore(folder, Limits())

    def save(self, name: str, hours: float) -> Path:
        """Have one that was used so many hours ago."""
        path = self.store._folder / f"vm-{name}"
        path.mkdir()
        (path / "memory").write_bytes(bytes(8192))
        identity = {"format": 1, "qemu": "any"}
        (path / RECORD).write_text(json.dumps({"identity": identity, "blobs": ["runtime"]}))
        then = time.time() - hours * HOUR
        os.utime(path / RECORD, (then, then))
        return path

    def stored(self) -> tuple[StoredTemplate, ...]:
        """Those that are there."""
        return tuple(self.store.stored(None))

    def drop(self, template: Template) -> None:
        """Remove one."""
        self.store.drop(template)


async def test_saved_vms_that_are_not_used_go(world: World) -> None:
    """By default, too; those that were used lately stay, and all of them while one is being made."""
    saved = OnDisk(world.backend, world.paths.templates)
    world.backend.capabilities = replace(world.backend.capabilities, templates=saved)
    put_blob(world, "runtime")
    old, new = saved.save("old", 100), saved.save("new", 1)
    async with world.manager() as manager:
        plan = await clean(world, manager, [], dry_run=True)
        assert [row["name"] for row in plan["templates"]] == [old.name]
        assert plan["templates"][0]["size_bytes"] >= 8192
        assert plan["orphans"] == []
        assert await clean(world, manager, [], scopes={"logs"}, dry_run=True) == {
            **{scope: [] for scope in (*SCOPES, "consoles")}, "size_bytes": 0, "dry_run": True
        }  # fmt: skip
        with saved.store.lock():
            assert (await clean(world, manager, []))["templates"] == []
        assert old.exists()
        done = await clean(world, manager, [])
        assert {**done, "dry_run": True} == plan
        assert [path.name for path in world.paths.templates.glob("*vm-*")] == [new.name]
        assert [row["name"] for row in (await clean(world, manager, [], until=0))["templates"]] == [new.name]


def put_blob(world: World, name: str) -> None:
    """Have a blob of this name, without which a template is an orphan."""
    blobs = open_images(world.paths).store.blobs
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / name).touch()


async def test_old_snapshots_go_only_when_that_is_asked(world: World) -> None:
    """Those that came here lately stay, and what an old one alone needed goes with it."""
    store = LayoutStore(world.paths.images)
    image, other = put_image(store, "image"), put_image(store, "other")
    upper = world.paths.data / "upper"
    upper.write_bytes(bytes(8192))
    async with world.manager() as manager:
        for name, digest, hours in (("old", image, 100), ("new", other, 1)):
            snapshot = Snapshot(name, "qemu", "dev", "image", metadata.now(), digest, 8192)
            manager.snapshots.store.save(snapshot, upper, Progress(), Stop())
            then = time.time() - hours * HOUR
            os.utime(world.paths.snapshots / name / SNAPSHOT, (then, then))
        done = await clean(world, manager, [])
        assert (done["snapshots"], store.has(image)) == ([], True)
        scopes = {"snapshots", "images"}
        plan = await clean(world, manager, [], scopes=scopes, dry_run=True)
        assert [row["name"] for row in plan["snapshots"]] == ["old"]
        assert plan["snapshots"][0]["size_bytes"] >= 8192
        assert image in {row["digest"] for row in plan["images"]}
        assert await clean(world, manager, [], scopes=scopes) == {**plan, "dry_run": False}
        assert manager.snapshots.store.names() == ["new"]
        assert (store.has(image), store.has(other)) == (False, True)
