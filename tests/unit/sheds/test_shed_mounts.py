"""Sheds with several folders of the host: kept, told to the guest, changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shed.api.making import UpdateShed
from shed.api.mounts import ChangeMounts
from shed.errors import ConflictError, NotFoundError, ShedError, UsageError
from shed.progress import Event, Progress, WarningEvent
from shed.sheds import leftovers, metadata
from shed.sheds.manager import Manager
from shed.sheds.metadata import Record
from support.images.runtimes import small_runtime
from support.servers.world import World, create


@pytest.fixture
def places(world: World, tmp_path: Path) -> dict[str, str]:
    """Folders of the host by name; the image has a user."""
    (world.blobs / "root").write_bytes(small_runtime("base"))
    found = {}
    for name in ("work", "data", "notes"):
        (tmp_path / "host" / name).mkdir(parents=True)
        found[name] = str(tmp_path / "host" / name)
    return found


def told(manager: Any, name: str) -> list[dict[str, Any]]:
    """Return the folders that the guest was told of at its last start."""
    lines = manager.catalog.console_log(name).decode().splitlines()
    mounts: list[dict[str, Any]] = json.loads([line for line in lines if line.startswith("{")][-1])["mounts"]
    return mounts


async def change(manager: Manager, name: str, wanted: ChangeMounts, warnings: list[str] | None = None) -> Record:
    """Change the folders of a shed; `warnings` gets what is told."""
    heard: list[str] = [] if warnings is None else warnings
    return await manager.mounts.change(name, wanted, heard.append)


async def test_several_folders(world: World, places: dict[str, str]) -> None:
    """Beside a workspace; the VM has them with their modes, the guest their places, and a start has them again."""
    wanted = [f"{places['data']}:/data:ro", f"{places['notes']}:/home/me/notes"]
    async with world.manager() as manager:
        shed = await create(manager, "dev", local_dir=places["work"], mounts=wanted)
        assert shed["mounts"] == [
            {"source": places["data"], "target": "/data", "mode": "ro"},
            {"source": places["notes"], "target": "/home/me/notes", "mode": "rw"},
        ]
        await manager.stop("dev", Progress())
        await manager.start("dev", Progress())
        for machine in world.backend.started:
            shares = [(str(share.path), share.mode, share.guest_uid) for share in machine.folders]
            assert shares == [(places["work"], "rw", 0), (places["data"], "ro", 0), (places["notes"], "rw", 0)]
        assert [(one["tag"], one.get("source"), one["target"], one["readonly"]) for one in told(manager, "dev")] == [
            ("workspace", None, "/workspace", False),
            ("mounts", f"held{places['data']}", "/data", True),
            ("mounts", f"held{places['notes']}", "/home/me/notes", False),
        ]


async def test_a_stopped_shed_gets_folders_and_loses_them(world: World, places: dict[str, str]) -> None:
    """It has them from its next start on; what is wrong changes nothing."""
    async with world.manager() as manager:
        await create(manager, "dev")
        with pytest.raises(ConflictError) as caught:
            await change(manager, "dev", ChangeMounts(add=[f"{places['data']}:/data"]))
        assert caught.value.code == "SHED_NOT_STOPPED"
        await manager.stop("dev", Progress())
        await change(manager, "dev", ChangeMounts(add=[f"{places['data']}:/data", f"{places['notes']}:/n"]))
        for wrong in (
            ChangeMounts(add=[f"{places['work']}:/data"]),
            ChangeMounts(add=[f"{places['data']}:/more"]),
            ChangeMounts(add=[f"{places['work']}:/w"], remove=["/none"]),
            ChangeMounts(remove=["/workspace"]),
        ):
            with pytest.raises((UsageError, NotFoundError)):
                await change(manager, "dev", wrong)
        wanted = ChangeMounts(add=[f"{places['work']}:/n:ro"], remove=["/n/"])
        record = await change(manager, "dev", wanted)
        assert [str(mount) for mount in record.mounted] == [f"{places['data']}:/data:rw", f"{places['work']}:/n:ro"]
        await manager.start("dev", Progress())
        assert [one["target"] for one in told(manager, "dev")] == ["/data", "/n"]
        await manager.stop("dev", Progress())
        record = await change(manager, "dev", ChangeMounts(remove=["/data", "/n"]))
        assert record.mounts is None
        assert "mounts" not in manager.catalog.get("dev")


async def test_a_folder_that_is_gone(world: World, places: dict[str, str]) -> None:
    """The shed does not start, and says how to put that right; without it, it does."""
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data"])
        await manager.stop("dev", Progress())
        Path(places["data"]).rmdir()
        with pytest.raises(ConflictError) as caught:
            await manager.start("dev", Progress())
        assert caught.value.code == "LOCAL_DIR_MISSING"
        assert "shed mount rm dev /data" in str(caught.value.hint)
        await change(manager, "dev", ChangeMounts(add=[f"{places['notes']}:/n"], remove=["/data"]))
        assert (await manager.start("dev", Progress()))["status"] == "running"


async def stopped(manager: Any) -> list[str]:
    """Stop the shed, and return what is told then."""
    told: list[Event] = []
    await manager.stop("dev", Progress(told.append))
    return [event.message for event in told if isinstance(event, WarningEvent)]


@pytest.mark.parametrize("place", ["b", "a"])
async def test_a_folder_that_became_a_link(world: World, places: dict[str, str], tmp_path: Path, place: str) -> None:
    """Another shed may write to what is above it, and had it lead elsewhere: nothing starts with that."""
    (tmp_path / "src/a/b").mkdir(parents=True)
    source = str(tmp_path / "src/a/b")
    async with world.manager() as manager:
        await create(manager, "own", local_dir=source)
        await create(manager, "further", mounts=[f"{source}:/data"])
        changed = Path(source) if place == "b" else Path(source).parent
        changed.rename(tmp_path / "src/c")
        changed.symlink_to(places["work"] if place == "b" else tmp_path / "src/c")
        before = len(world.backend.started)
        for name in ("own", "further"):
            await manager.stop(name, Progress())
            with pytest.raises(ConflictError, match="a link is on the way") as caught:
                await manager.start(name, Progress())
            assert caught.value.code == "LOCAL_DIR_MISSING"
        assert len(world.backend.started) == before


async def test_what_a_shed_with_folders_cannot(world: World, places: dict[str, str]) -> None:
    """It is not suspended, by nobody, as one with a workspace of the host's is not; and one that is to be gets none."""
    add = ChangeMounts(add=[f"{places['notes']}:/n"])
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data"])
        for refused in (
            manager.suspensions.suspend("dev", Progress()),
            manager.update("dev", UpdateShed(idle_suspend=3600), Progress()),
            manager.update("dev", UpdateShed(ttl_action="suspend"), Progress()),
        ):
            with pytest.raises(ShedError, match="cannot be suspended"):
                await refused
        await create(manager, "idle", idle_suspend=3600)
        await manager.stop("idle", Progress())
        with pytest.raises(ConflictError, match="cannot be suspended"):
            await change(manager, "idle", add)


async def test_what_was_left_in_each_folder_is_told(world: World, places: dict[str, str]) -> None:
    """Of all that it could write to, with the words that look at all of it."""
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data", f"{places['notes']}:/n:ro"])
        record = manager.catalog.record("dev")
        for place in (places["data"], places["notes"]):
            for number in range(6):
                (Path(place) / str(number)).mkdir()
                (Path(place) / str(number) / ".envrc").touch()
        words = leftovers.changed(record, 0.0)
        assert len(words) == 6
        assert all(places["data"] in line for line in words)
        assert words[-1].endswith("shed workspace check dev --mount /data")
        assert len(manager.catalog.look_at_workspace("dev", None, "/n")["findings"]) == 6
        with pytest.raises(UsageError, match="at /workspace"):
            manager.catalog.look_at_workspace("dev", None, "/workspace")


async def test_what_it_left_is_told_whatever_was_noted_meanwhile(world: World, places: dict[str, str]) -> None:
    """Its record is written when it gets a label, too: what has changed since it was last stopped is told, once."""
    hooks = [Path(places[name]) / ".envrc" for name in ("work", "data")]
    async with world.manager() as manager:
        await create(manager, "dev", local_dir=places["work"], mounts=[f"{places['data']}:/data"])
        for path in hooks:
            path.touch()
        record = manager.catalog.record("dev")
        metadata.save(world.instance("dev"), replace(record, created_at="2020-01-01T00:00:00Z"))
        await manager.update("dev", UpdateShed(labels={"a": "b"}), Progress())
        before = leftovers.since(manager.catalog.record("dev"))
        assert before < min(path.stat().st_ctime for path in hooks) - 1000
        said = await stopped(manager)
        assert [line.partition(" ")[0] for line in said] == list(map(str, hooks))
        started = manager.catalog.record("dev")
        assert started.started_at is None
        await manager.start("dev", Progress())
        again = manager.catalog.record("dev")
        assert again.started_at is not None
        await manager.update("dev", UpdateShed(labels={"c": "d"}), Progress())
        await world.backend.kill(world.instance("dev"))
        await manager.start("dev", Progress())  # it ended by itself, so nobody was told of its first run
        assert manager.catalog.record("dev").started_at == again.started_at
        assert leftovers.since(again) > before


async def test_a_folder_that_cannot_be_looked_at_hides_no_other(world: World, places: dict[str, str]) -> None:
    """It is named, and what was left in the others is told."""
    async with world.manager() as manager:
        await create(manager, "dev", local_dir=places["work"], mounts=[f"{places['data']}:/data"])
        (Path(places["data"]) / ".envrc").touch()
        Path(places["work"]).rmdir()
        gone, left = await stopped(manager)
        assert gone.startswith(f"{places['work']}, to which shed 'dev' could write, cannot be looked at: No such file")
        assert left.startswith(f"{places['data']}/.envrc has changed")


async def test_a_record_that_says_nonsense(world: World, places: dict[str, str]) -> None:
    """It is damaged, and nothing is mounted."""
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data"])
        await manager.stop("dev", Progress())
        record = replace(manager.catalog.record("dev"), mounts=[f"{places['data']}:/proc"])
        metadata.save(world.instance("dev"), record)
        with pytest.raises(metadata.DamagedError):
            await manager.start("dev", Progress())


def said(manager: Any, name: str, op: str) -> list[dict[str, Any]]:
    """Return what the guest was asked to do of this kind since its start."""
    lines = [json.loads(line) for line in manager.catalog.console_log(name).decode().splitlines() if line[:1] == "{"]
    return [line for line in lines if line["op"] == op]


async def test_a_running_shed_gets_folders_and_loses_them(world: World, places: dict[str, str]) -> None:
    """The VM has it before the guest mounts it; the guest unmounts it before it goes; a start has what is left."""
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data"])
        instance = world.instance("dev")
        await change(manager, "dev", ChangeMounts(add=[f"{places['notes']}:/n:git-rw"]))
        (share,) = world.backend.mounting.given[instance]
        assert (str(share.path), share.mode, share.tag) == (places["notes"], "git-rw", "mounts")
        (asked,) = said(manager, "dev", "mount")
        assert asked["mounts"][0]["source"] == f"free{places['notes']}"
        record = await change(manager, "dev", ChangeMounts(remove=["/n"]))
        assert record.mounts == [f"{places['data']}:/data:rw"]
        assert world.backend.mounting.given[instance] == []
        (asked,) = said(manager, "dev", "unmount")
        assert (asked["target"], asked["force"], asked["last"]) == ("/n", False, False)
        record = await change(manager, "dev", ChangeMounts(remove=["/data"], force=True))
        assert record.mounts == []
        assert said(manager, "dev", "unmount")[-1]["last"]
        with pytest.raises(ShedError, match="cannot be suspended"):
            await manager.suspensions.suspend("dev", Progress())  # its VM has what cannot be kept, empty as it is
        await change(manager, "dev", ChangeMounts(add=[f"{places['notes']}:/n"]))
        await manager.stop("dev", Progress())
        await manager.start("dev", Progress())
        assert [one["target"] for one in told(manager, "dev")] == ["/n"]
        await change(manager, "dev", ChangeMounts(remove=["/n"]))
        await manager.stop("dev", Progress())
        assert manager.catalog.record("dev").mounts is None


async def test_a_folder_that_is_used_stays_unless_it_is_forced(world: World, places: dict[str, str]) -> None:
    """Then nothing has changed."""
    world.backend.faults.add("uses-folders")
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data"])
        with pytest.raises(ConflictError) as caught:
            await change(manager, "dev", ChangeMounts(remove=["/data"]))
        assert caught.value.code == "MOUNT_IN_USE"
        assert manager.catalog.record("dev").mounted
        assert (await change(manager, "dev", ChangeMounts(remove=["/data"], force=True))).mounts == []


async def test_a_guest_that_does_not_do_it(world: World, places: dict[str, str]) -> None:
    """A folder that it does not mount is taken back; one that it does not unmount is taken all the same."""
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data"])
        await manager.stop("dev", Progress())
        world.backend.faults.add("cannot-mount")
        await manager.start("dev", Progress())
        with pytest.raises(ShedError, match="cannot mount"):
            await change(manager, "dev", ChangeMounts(add=[f"{places['notes']}:/n"]))
        assert world.backend.mounting.given[world.instance("dev")] == []
        assert [mount.target for mount in manager.catalog.record("dev").mounted] == ["/data"]
        assert (await change(manager, "dev", ChangeMounts(remove=["/data"]))).mounts == []


async def test_a_vm_that_does_not_let_go_ends(world: World, places: dict[str, str]) -> None:
    """It is told; the shed can be started again, without the folder."""
    async with world.manager() as manager:
        await create(manager, "dev", mounts=[f"{places['data']}:/data"])
        world.backend.faults.add("keeps")
        with pytest.raises(ShedError) as caught:
            await change(manager, "dev", ChangeMounts(remove=["/data"]))
        assert caught.value.code == "STILL_SHARED"
        assert world.machines() == []
        assert manager.catalog.get("dev")["status"] == "stopped"
        assert (await manager.start("dev", Progress()))["status"] == "running"
        assert told(manager, "dev") == []


async def test_what_was_left_is_told_when_a_folder_goes(world: World, places: dict[str, str]) -> None:
    """A stop would not look there any more."""
    async with world.manager() as manager:
        await create(manager, "dev", local_dir=places["work"], mounts=[f"{places['data']}:/data"])
        for name in ("work", "data"):
            (Path(places[name]) / ".envrc").touch()
        warnings: list[str] = []
        await change(manager, "dev", ChangeMounts(remove=["/data"]), warnings)
        assert [words.split()[0] for words in warnings] == [f"{places['data']}/.envrc"]
