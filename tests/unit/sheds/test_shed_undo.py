"""A create that fails at any step leaves nothing, says why, and can be done again."""

import asyncio
import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.errors import BackendError, ShedError, StorageError
from shed.fsutil import atomic_write
from shed.progress import Progress
from shed.sheds import folders, metadata, upper
from shed.sheds.manager import Manager
from support.servers.world import World, create
from support.waiting import until


def boom(*_: object, **__: object) -> Any:
    raise StorageError("the disk is full", code="NO_SPACE")


BREAK: dict[str, Any] = {
    "reserve": lambda patch: patch.setattr(metadata, "save_marker", boom),
    "rename": lambda patch: patch.setattr(folders, "fsync_dir", boom),
    "template": lambda patch: patch.setattr(upper, "template", boom),
    "upper": lambda patch: patch.setattr(upper, "clone_file", boom),
    "metadata": lambda patch: patch.setattr(metadata, "save", boom),
    "vm": lambda patch: patch.setattr("support.servers.fake_backend.FakeBackend.start", boom),
    "agent": lambda patch: patch.setattr("support.servers.fake_backend.FakeBackend.connect", boom),
    "configure": lambda patch: patch.setattr("shed.sheds.boot.configure", boom),
    "commit": lambda patch: patch.setattr(folders.Folders, "commit", boom),
}


@pytest.mark.parametrize("step", BREAK)
async def test_a_create_that_fails_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Break one step: no folder, no VM; mend it: the same create works."""
    async with world.manager() as manager:
        with monkeypatch.context() as patch:
            BREAK[step](patch)
            with pytest.raises(ShedError) as caught:
                await create(manager, "dev")
        assert caught.value.code == "NO_SPACE"
        if step != "rename":  # there, the disk does not even let us remove
            assert world.traces() == set()
        assert world.machines() == []
        assert (await create(manager, "dev"))["status"] == "running"


@pytest.mark.parametrize(
    ("fault", "code"),
    [("no-start", "BACKEND_ERROR"), ("die", "VM_EXITED"), ("mute", "AGENT_TIMEOUT"), ("no-root", "SHED-INIT-03")],
)
async def test_a_guest_that_does_not_come_up_is_explained(world: World, fault: str, code: str) -> None:
    """Every way a VM can fail has its code, leaves nothing, and keeps the console when there was one."""
    world.backend.faults.add(fault)
    world.with_settings(start_timeout=5 if fault == "mute" else 60)
    async with world.manager() as manager:
        with pytest.raises(BackendError) as caught:
            await create(manager, "dev")
        assert caught.value.code == code
        assert world.traces() == set()
        assert world.machines() == []
        if fault != "no-start":
            (kept,) = world.paths.logs.iterdir()
            assert kept.name.startswith("dev-")
            assert b"fake kernel: booted" in kept.read_bytes()
            assert caught.value.hint is not None
            assert str(kept) in caught.value.hint
        world.backend.faults.clear()
        world.with_settings(start_timeout=60)
        assert (await create(manager, "dev"))["status"] == "running"


async def test_one_time_for_all_of_a_start(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To be ready a guest has what its first word left of it; and the log tells that a create failed, and why."""
    left = []

    async def configure(*_: object, outfit: object, wait: float) -> None:
        left.append(wait)
        boom()

    async with world.manager() as manager:
        monkeypatch.setattr("shed.sheds.boot.configure", configure)
        with pytest.raises(StorageError):
            await create(manager, "dev", timeout=30.0)
    assert 0 < left[0] < 30
    assert "create of shed dev failed: the disk is full" in caplog.text


async def test_a_start_that_fails_leaves_a_stopped_shed_with_its_files(world: World) -> None:
    """Only the VM is undone; the next start works."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        world.backend.faults.add("no-root")
        with pytest.raises(BackendError, match="root file system"):
            await manager.start("dev", Progress())
        assert manager.catalog.get("dev")["status"] == "stopped"
        assert (world.paths.uppers / "dev/upper.ext4").exists()
        assert world.machines() == []
        world.backend.faults.clear()
        assert (await manager.start("dev", Progress()))["status"] == "running"


async def test_a_workspace_that_vanished_is_told_at_start(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start names the folder; when it is back, start works."""
    monkeypatch.setattr("shed.sheds.workspace.guest_owner", lambda root, user: (1000, 1000))
    work = tmp_path / "real"
    work.mkdir()
    (tmp_path / "link").symlink_to(work)
    async with world.manager() as manager:
        shed = await create(manager, "dev", local_dir=str(tmp_path / "link"))
        assert shed["local_dir"] == str(work)
        (share,) = world.backend.started[0].shares
        assert (share.path, share.guest_uid, share.guest_gid) == (work, 1000, 1000)
        await manager.stop("dev", Progress())
        work.rmdir()
        with pytest.raises(ShedError, match="there is no such folder") as caught:
            await manager.start("dev", Progress())
        assert caught.value.code == "LOCAL_DIR_MISSING"
        work.mkdir()
        await manager.start("dev", Progress())


async def test_a_server_that_ends_during_a_create_undoes_it(world: World) -> None:
    """Cancelled while the guest is silent: VM and folders go."""
    world.backend.faults.add("mute")
    async with world.manager() as manager:
        task = asyncio.create_task(create(manager, "dev"))
        await until(world.machines)
        assert manager.catalog.get("dev")["status"] == "starting"
        assert [shed["status"] for shed in manager.catalog.list()[0]] == ["starting"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert world.traces() == set()
        assert world.machines() == []


async def test_a_failed_undo_keeps_the_marker_for_the_next_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed now is not listed, and is removed by the next create of the name."""
    async with world.manager() as manager:
        with monkeypatch.context() as patch:
            patch.setattr("shed.sheds.boot.configure", boom)
            patch.setattr(folders.Folders, "remove", boom)
            with pytest.raises(ShedError):
                await create(manager, "dev")
        assert world.traces() == {"instances/dev", "uppers/dev"}
        assert manager.catalog.list() == ([], [])
        with pytest.raises(ShedError) as caught:
            await manager.start("dev", Progress())
        assert caught.value.code == "SHED_NOT_FOUND"
        assert (await create(manager, "dev"))["status"] == "running"


@pytest.mark.parametrize("cut", ["instance", "upper"])
async def test_a_delete_cut_short_is_completed(world: World, monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    """After its first step the shed is gone for everybody; the next server removes the rest, and no other shed's
    files.
    """
    real = shutil.rmtree

    def rmtree(path: Path) -> None:
        if cut == "instance" or path.suffix == ".gone":
            raise OSError(errno.EIO, "cut short")
        real(path)

    async with world.manager() as manager:
        await create(manager, "dev")
        await create(manager, "other")
        await manager.stop("dev", Progress())
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", rmtree)
            with pytest.raises(StorageError):
                await manager.delete("dev", force=False, progress=Progress())
        assert [shed["name"] for shed in manager.catalog.list()[0]] == ["other"]
    async with world.manager():
        await until(lambda: world.traces() == {"instances/other", "uppers/other"})


async def test_a_start_that_cannot_be_recorded_leaves_no_vm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest is up, its record cannot be written: the VM is gone again, and the next start works."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "save", boom)
            with pytest.raises(StorageError):
                await manager.start("dev", Progress())
        assert world.machines() == []
        assert (await manager.start("dev", Progress()))["status"] == "running"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.root
async def test_no_space_is_one_clear_error_and_a_retry_works(small_disk: Path) -> None:
    """Too full for a shed: refused before the VM; really full: the write's error; space again: it works."""
    world = World(small_disk).prepare()
    world.with_settings(start_reserve=0)
    ballast = small_disk / "ballast"

    async def attempt(manager: Manager, fill: int | None) -> StorageError:
        ballast.write_bytes(bytes(fill if fill is not None else 0))
        if fill is None:
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))
        with pytest.raises(StorageError) as caught:
            await create(manager, "dev")
        ballast.unlink()
        assert caught.value.hint
        assert world.traces() == set()
        assert world.backend.started == []
        return caught.value

    try:
        async with world.manager() as manager:
            assert (await attempt(manager, 48 << 20)).code == "NO_SPACE"
            assert (await attempt(manager, None)).code == "STORAGE"
            assert (await create(manager, "dev"))["status"] == "running"
    finally:
        world.kill_machines()


async def test_a_damaged_record_is_listed_as_an_error_and_not_destroyed_by_accident(world: World) -> None:
    """The list says what is wrong, delete refuses, `force` removes; the others are not touched."""
    async with world.manager() as manager:
        await create(manager, "bad")
        await create(manager, "good")
        await manager.stop("bad", Progress())
        atomic_write(world.instance("bad") / "metadata.json", "{")
        sheds, warnings = manager.catalog.list()
        assert ([(shed["name"], shed["status"]) for shed in sheds], warnings) == (
            [("bad", "error"), ("good", "running")],
            [],
        )
        assert "shed delete --force bad" in sheds[0]["detail"]
        for work in (manager.start("bad", Progress()), manager.delete("bad", force=False, progress=Progress())):
            with pytest.raises(metadata.DamagedError):
                await work
        assert (world.paths.uppers / "bad/upper.ext4").exists()
        await manager.delete("bad", force=True, progress=Progress())
        assert world.traces() == {"instances/good", "uppers/good"}
