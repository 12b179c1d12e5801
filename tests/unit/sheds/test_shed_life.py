"""A shed's life under the manager: create, use, stop, start, delete, and what each refuses."""

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from shed.errors import BackendError, ConflictError, NotFoundError, ShedError, UsageError
from shed.guest.protocol import EXEC_REQUEST, EXIT_CODE, FrameDecoder, exec_frame
from shed.progress import PhaseEvent, Progress
from shed.sheds import boot
from shed.sheds.manager import Manager
from support.servers.world import DIGEST, GIB, World, create
from support.waiting import until


async def command(manager: Manager, name: str, *words: str) -> tuple[bytes, bytes]:
    """Run a command and return its output and its exit frame."""
    stream = await manager.guests.open_exec(name)
    quoted = ",".join(f'"{word}"' for word in words)
    await stream.write(exec_frame(EXEC_REQUEST, f'{{"cmd":[{quoted}]}}'.encode()))
    decoder, output, code = FrameDecoder(), b"", b""
    while data := await stream.read():
        decoder.feed(data)
        while frame := decoder.frame():
            if frame[0] == EXIT_CODE:
                code = frame[1]
            else:
                output += frame[1]
    stream.close()
    return output, code


async def test_a_shed_is_created_used_stopped_started_and_deleted(world: World) -> None:
    """The whole life, and what is on disk and running after each step."""
    async with world.manager() as manager:
        shed = await create(manager, "dev", cpus=3, memory_mb=512, upper_size_bytes=2 * GIB)
        assert {
            key: shed[key] for key in ("name", "status", "image", "image_digest", "backend", "cpus", "memory_mb")
        } == {
            "name": "dev",
            "status": "running",
            "image": "base",
            "image_digest": DIGEST,
            "backend": "fake",
            "cpus": 3,
            "memory_mb": 512,
        }
        assert world.machines() == [shed["pid"]]
        assert {"image", "upper", "vm", "agent", "configure", "commit"} <= set(shed["timings"])
        upper = world.paths.uppers / "dev/upper.ext4"
        assert upper.stat().st_size == 2 * GIB
        assert upper.stat().st_blocks * 512 < 1 << 20
        assert upper.stat().st_mode & 0o777 == 0o600
        assert await command(manager, "dev", "echo", "hello") == (b"hello\n", b'{"code": 0}')

        assert (await manager.stop("dev", Progress()))["status"] == "stopped"
        assert world.machines() == []
        assert (await manager.start("dev", Progress()))["status"] == "running"
        assert len(world.machines()) == 1

        await manager.delete("dev", force=True, progress=Progress())
        assert world.machines() == []
        assert world.traces() == set()
        with pytest.raises(NotFoundError):
            manager.catalog.get("dev")


async def test_the_guest_is_told_everything_in_one_message(world: World, tmp_path: Path) -> None:
    """Name, disk size, network, clock, fresh entropy, mounts, user: `configure` carries it all."""
    import json

    work = tmp_path / "work"
    work.mkdir()
    async with world.manager() as manager:
        await create(manager, "one", upper_size_bytes=3 * GIB)
        await create(manager, "two")
        log, other_log = (manager.catalog.console_log(name).decode().splitlines() for name in ("one", "two"))
        told, other = json.loads(log[1]), json.loads(other_log[1])
        assert log[0] == "fake kernel: booted"
        assert (told["op"], told["name"], told["hostname"], told["disks"]) == (
            "configure",
            "one",
            "one",
            [3 * GIB, 512],
        )
        assert re.fullmatch("02[0-9a-f]{10}", told["network"].pop("mac"))
        assert told["network"] == {"address": "10.0.2.15/24", "gateway": "10.0.2.2", "dns": "10.0.2.3"}
        assert (
            abs(told["clock"] - (await asyncio.to_thread((world.instance("one") / "metadata.json").stat)).st_mtime) < 60
        )
        assert told["entropy"] != other["entropy"]
        assert len(told["entropy"]) >= 44
        assert told["mounts"] == []
        machine = world.backend.started[0]
        assert [(disk.path.name, disk.read_only) for disk in machine.disks] == [
            ("upper.ext4", False),
            ("root", True),
            ("runtime", True),
        ]


async def test_start_uses_the_image_the_shed_was_made_from(world: World) -> None:
    """The tag may move; the shed stays with its digest."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        await manager.start("dev", Progress())
    assert world.resolved == ["base", DIGEST, DIGEST]  # a create looks twice: see `shed.oci.leases`


async def test_what_a_state_does_not_allow_is_refused_with_its_code(world: World) -> None:
    """Each wrong request has its own code, and changes nothing."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await refused("SHED_ALREADY_EXISTS", create(manager, "dev"))
        await refused("SHED_ALREADY_RUNNING", manager.start("dev", Progress()))
        await refused("SHED_NOT_STOPPED", manager.delete("dev", force=False, progress=Progress()))
        await manager.stop("dev", Progress())
        await refused("SHED_ALREADY_STOPPED", manager.stop("dev", Progress()))
        await refused("SHED_NOT_RUNNING", manager.guests.open_port("dev", 7))
        await refused("SHED_NOT_FOUND", manager.start("other", Progress()))
        await refused("SHED_NOT_FOUND", manager.guests.open_exec("other"))
        await refused("IMAGE_NOT_FOUND", create(manager, "new", image="nothing"))
        await refused("INVALID_SHED_NAME", create(manager, "../etc"))
        await refused("INVALID_REQUEST", create(manager, "new", upper_size_bytes=100 * GIB + 1))
        await refused("INVALID_REQUEST", create(manager, "new", cpus=0))
        assert world.traces() == {"instances/dev", "uppers/dev"}


async def refused(code: str, work: Any) -> None:
    with pytest.raises(ShedError) as caught:
        await work
    assert caught.value.code == code
    assert caught.value.hint


async def test_of_two_creates_of_one_name_one_wins(world: World) -> None:
    """The other one is told at once; the winner is whole."""
    async with world.manager() as manager:
        results = await asyncio.gather(*(create(manager, "dev") for _ in range(4)), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        assert len(errors) == 3
        assert {getattr(error, "code", error) for error in errors} == {"SHED_ALREADY_EXISTS"}
        assert (await command(manager, "dev", "true"))[1] == b'{"code": 0}'
        assert len(world.machines()) == 1


async def test_two_servers_on_one_folder_do_not_work_on_one_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is locked between processes, too."""
    refusal = asyncio.Event()
    configure = boot.configure

    async def hold(*arguments: Any, **options: Any) -> None:
        await refusal.wait()
        await configure(*arguments, **options)

    monkeypatch.setattr(boot, "configure", hold)
    async with world.manager() as manager, world.manager() as other:
        first = asyncio.create_task(create(manager, "dev"))
        await until(lambda: world.instance("dev").exists())
        await refused("SHED_BUSY", create(other, "dev"))
        refusal.set()
        assert (await first)["status"] == "running"


async def test_a_stopped_shed_starts_for_the_first_of_many_commands(world: World) -> None:
    """Commands that come together share one start."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        results = await asyncio.gather(*(command(manager, "dev", "echo", str(i)) for i in range(5)))
        assert [output for output, _ in results] == [b"%d\n" % i for i in range(5)]
        assert len(world.backend.started) == 2


async def test_a_killed_vm_is_noticed_and_starts_again(world: World) -> None:
    """The status says that it ended on its own; start, and exec, bring it back."""
    async with world.manager() as manager:
        for revive in (lambda: manager.start("dev", Progress()), lambda: command(manager, "dev", "true")):
            if not world.instance("dev").exists():
                await create(manager, "dev")
            os.kill(manager.catalog.get("dev")["pid"], signal.SIGKILL)
            await until(
                lambda: not manager._names["dev"].link.live and manager.catalog.get("dev")["status"] == "stopped"
            )
            assert manager.catalog.get("dev")["detail"] == "its VM ended on its own"
            await revive()
            assert manager.catalog.get("dev")["status"] == "running"
            assert (await command(manager, "dev", "echo", "back"))[0] == b"back\n"


async def test_a_file_system_with_errors_is_told(world: World) -> None:
    """With what helps; until then it works as well as it can."""
    async with world.manager() as manager:
        assert "detail" not in await create(manager, "dev")
        upper = world.paths.uppers / "dev/upper.ext4"
        with upper.open("r+b") as file:
            file.seek(1082)
            file.write(b"\x03")
        assert f"e2fsck -fy {upper}" in manager.catalog.get("dev")["detail"]
        assert manager.catalog.get("dev")["status"] == "running"


async def test_a_guest_that_does_not_power_off_is_killed(world: World) -> None:
    """Stop ends with a stopped shed, and a warning."""
    world.backend.faults.add("stubborn")
    world.with_settings(stop_timeout=1)
    events: list[Any] = []
    async with world.manager() as manager:
        await create(manager, "dev")
        assert (await manager.stop("dev", Progress(events.append)))["status"] == "stopped"
        assert world.machines() == []
    assert any("killed" in getattr(event, "message", "") for event in events if not isinstance(event, PhaseEvent))


async def test_a_vm_in_doubt_is_left_alone(world: World) -> None:
    """Unknown is not stopped: nothing is started twice, signalled or removed."""
    async with world.manager() as manager:
        pid = (await create(manager, "dev"))["pid"]
    world.backend.unknown = True
    async with world.manager() as manager:
        assert (manager.catalog.get("dev")["status"], "detail" in manager.catalog.get("dev")) == ("running", True)
        await refused("VM_UNKNOWN", manager.start("dev", Progress()))
        await refused("VM_UNKNOWN", manager.stop("dev", Progress()))
        await refused("VM_UNKNOWN", manager.delete("dev", force=True, progress=Progress()))
    assert world.machines() == [pid]
    assert world.traces() == {"instances/dev", "uppers/dev"}
    world.backend.unknown = False


async def test_a_new_server_adopts_what_runs(world: World) -> None:
    """The VM keeps its process, and its agent answers the new server."""
    async with world.manager() as manager:
        pid = (await create(manager, "dev"))["pid"]
    async with world.manager() as manager:
        assert manager.catalog.get("dev")["pid"] == pid
        assert (await command(manager, "dev", "echo", "still"))[0] == b"still\n"
    assert len(world.backend.started) == 1


async def test_a_vm_whose_server_ended_before_configure_is_configured_by_the_next(world: World) -> None:
    """A start that was cut between hello and ready is completed, not lost."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        folder = world.instance("dev")
        machine = world.backend.started[-1]
        await world.backend.start(machine)  # as far as a killed server came
        assert (await command(manager, "dev", "true"))[1] == b'{"code": 0}'
        assert b'"op": "configure"' in (folder / "console.log").read_bytes()


async def test_a_vm_that_the_next_server_cannot_configure(world: World) -> None:
    """It is said why, and to whoever comes later, how to be rid of it; then the shed can be started again."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        world.backend.faults.add("no-root")
        await world.backend.start(world.backend.started[-1])
        for code in ("SHED-INIT-03", "GUEST_NOT_READY"):
            with pytest.raises(BackendError, match=r"mounting the root file system failed|'dev' is failed") as caught:
                await manager.guests.open_exec("dev")
            assert (caught.value.code, "`shed stop dev` ends it" in (caught.value.hint or "")) == (code, True)
        world.backend.faults.clear()
        await manager.stop("dev", Progress())
        assert (await manager.start("dev", Progress()))["status"] == "running"


async def test_a_port_of_the_guest_is_reached_and_a_closed_one_explained(world: World) -> None:
    """Port 7 of the fake guest echoes; port 8 refuses."""
    async with world.manager() as manager:
        await create(manager, "dev")
        stream = await manager.guests.open_port("dev", 7)
        await stream.write(b"ping")
        assert await stream.read() == b"ping"
        stream.close()
        with pytest.raises(ShedError) as caught:
            await manager.guests.open_port("dev", 8)
        assert caught.value.code == "CONNECT_FAILED"
        assert "refused" in caught.value.message


@pytest.mark.parametrize("kind", ["missing", "file", "relative", "nul", "closed"])
async def test_a_workspace_that_is_no_folder_is_refused(world: World, tmp_path: Path, kind: str) -> None:
    """Refused before anything is made, with the reason."""
    (tmp_path / "file").write_text("")
    path = {
        "missing": tmp_path / "gone",
        "file": tmp_path / "file",
        "relative": "work",
        "nul": "/a\0b",
        "closed": "/proc/1/fd/none",
    }[kind]
    async with world.manager() as manager:
        with pytest.raises(UsageError) as caught:
            await create(manager, "dev", local_dir=str(path))
        assert caught.value.code == "INVALID_LOCAL_DIR"
    assert world.traces() == set()


async def test_a_lost_upper_is_told_at_start(world: World) -> None:
    """A shed without its files does not come up empty, and its status says that something is wrong."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        assert manager.catalog.get("dev")["status"] == "stopped"
        (world.paths.uppers / "dev/upper.ext4").unlink()
        assert manager.catalog.get("dev")["status"] == "error"
        assert "writable layer is gone" in manager.catalog.get("dev")["detail"]
        await refused("UPPER_MISSING", manager.start("dev", Progress()))
        (world.paths.uppers / "dev/upper.ext4").mkdir()
        await refused("UPPER_UNUSABLE", manager.start("dev", Progress()))


async def test_an_upper_without_a_shed_is_not_overwritten(world: World) -> None:
    """Somebody's files may be all that is left of a damaged shed."""
    orphan = world.paths.uppers / "dev/upper.ext4"
    orphan.parent.mkdir()
    orphan.write_bytes(b"precious")
    async with world.manager() as manager:
        with pytest.raises(ConflictError, match="belongs to no shed"):
            await create(manager, "dev")
    assert orphan.read_bytes() == b"precious"


async def test_who_learns_late_of_a_death_does_not_cut_off_who_started_again(world: World) -> None:
    """Two commands meet a VM that is gone; the second one's failure comes when the first one's shed is up again, and
    leaves it be.
    """
    async with world.manager() as manager:
        await create(manager, "dev")
        old, asked, told = manager._names["dev"].link.connection, asyncio.Event(), asyncio.Event()

        async def fail(port: int) -> Any:
            asked.set()
            await told.wait()
            raise BackendError("stream cut")

        old.open = fail  # type: ignore[union-attr, method-assign]
        late = asyncio.create_task(command(manager, "dev", "echo", "late"))
        await asked.wait()
        world.kill_machines()
        await until(lambda: not manager._names["dev"].link.live)
        assert await command(manager, "dev", "echo", "early") == (b"early\n", b'{"code": 0}')
        new = manager._names["dev"].link.connection
        told.set()
        assert await late == (b"late\n", b'{"code": 0}')
        assert manager._names["dev"].link.connection is new
    world.kill_machines()
