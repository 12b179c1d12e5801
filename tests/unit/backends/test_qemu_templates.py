"""Templates on disk: what they are found by, what makes one unusable, how many stay, and which nobody needs any
more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shed.backends.base import Disk, Machine, Share
from shed.backends.interface import Template
from shed.backends.qemu import QemuBackend, accel, command, templates
from shed.backends.qemu.templates import Limits, TemplateStore
from shed.config.paths import Paths
from shed.errors import ConflictError, StorageError
from shed.oci.store import LayoutStore
from shed.sheds import orphans
from shed.sheds.folders import prepare

KERNEL, INITRD, RUNTIME = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """The folders of a server."""
    paths = Paths(tmp_path / "data", tmp_path / "run")
    prepare(paths)
    return paths


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A QEMU that says its version and nothing else."""
    path = tmp_path / "bin/qemu-system-x86_64"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\necho QEMU emulator version 7.2.0\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


def machine(paths: Paths, name: str = "demo", *, cpus: int = 2, memory_mb: int = 256) -> Machine:
    """A machine; none of its files need be there."""
    blobs = LayoutStore(paths.images).blobs
    disks = (
        Disk(paths.uppers / name / "upper.ext4", read_only=False),
        Disk(blobs / f"root-{name}", read_only=True),
        Disk(blobs / RUNTIME, read_only=True),
    )
    return Machine(name, cpus, memory_mb, blobs / KERNEL, blobs / INITRD, disks, paths.instances / name)


def host(program: Path) -> command.Host:
    """What the host is to a machine."""
    return command.Host(program, "tcg", "some uuid", one_thread=True)


def publish(store: TemplateStore, wanted: Machine, on: command.Host) -> Template:
    """Make a template, without a VM."""
    with store.lock():
        plan = store.begin(wanted, on)
        (plan.state_dir / "state").write_bytes(random.Random(1).randbytes(5000))
        with (plan.state_dir / "memory").open("wb") as file:
            file.write(random.Random(2).randbytes(200_000))
            file.truncate(wanted.memory_mb << 20)
        return store.publish(plan, on)


def test_one_serves_every_shed_of_its_shape(paths: Paths, program: Path) -> None:
    """Names, images, uppers and shared folders do not matter; all that a restored machine must have in common does."""
    store, on = TemplateStore(paths.templates, Limits()), host(program)
    made = publish(store, machine(paths), on)
    assert sorted(path.name for path in made.path.iterdir()) == ["memory", "state", "template.json"]
    assert made.path.stat().st_mode & 0o777 == 0o700
    assert store.find(machine(paths, "other"), replace(on, uuid="another")) == made
    demo = machine(paths)
    share = Share("workspace", paths.data, 1000, 1000)
    for other in (
        machine(paths, cpus=1),
        machine(paths, memory_mb=512),
        replace(demo, kernel=demo.kernel.with_name("d" * 64)),
        replace(demo, initrd=demo.initrd.with_name("d" * 64)),
        replace(demo, disks=(*demo.disks[:2], Disk(demo.kernel, read_only=True))),
        replace(demo, shares=(share,)),
    ):
        assert store.find(other, on) is None
    assert store.find(demo, replace(on, accel="kvm")) is None
    assert store.find(demo, replace(on, one_thread=False)) is None
    shared = publish(store, replace(demo, shares=(share,)), on)
    assert store.find(replace(demo, shares=(replace(share, path=paths.run, guest_uid=7),)), on) == shared


def test_another_qemu_finds_nothing(paths: Paths, program: Path) -> None:
    """Even one that says the same of itself: the file is another."""
    store, on = TemplateStore(paths.templates, Limits()), host(program)
    publish(store, machine(paths), on)
    program.write_text(program.read_text() + "# patched\n")
    assert store.find(machine(paths), on) is None


@pytest.mark.slow
def test_a_digest_of_what_is_no_zeros(tmp_path: Path) -> None:
    """Holes or zeros are the same; another byte, another place and another length are not."""
    path = tmp_path / "memory"

    def digest(size: int, parts: dict[int, bytes]) -> str:
        with path.open("wb") as file:
            file.truncate(size)
            for at, data in parts.items():
                os.pwrite(file.fileno(), data, at)
        return templates.content_digest(path)

    ends = {70_000: b"a" * 100_000, (8 << 20) - 1: b"b"}
    found = digest(8 << 20, ends)
    assert digest(8 << 20, {0: bytes(8 << 20), **ends}) == found
    others = [
        digest(8 << 20, {**ends, 70_000: b"a" * 99_999}),
        digest(8 << 20, {**ends, 4 << 20: b"c"}),
        digest(8 << 20, {70_000 + (1 << 20): b"a" * 100_000, (8 << 20) - 1: b"b"}),
        digest((8 << 20) + 1, ends),
        digest(0, {}),
    ]
    assert len({found, *others}) == 6


@pytest.mark.parametrize("name", ["state", "memory", "template.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "a folder"])
def test_damage_is_seen_and_removed(
    paths: Paths, program: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At whatever place, in whatever file; the next one can be made."""
    store, on = TemplateStore(paths.templates, Limits()), host(program)
    chance = random.Random(f"{name} {damage}")
    for _ in range(5):
        made = publish(store, machine(paths), on)
        path = made.path / name
        size = path.stat().st_size
        if damage == "changed":
            with path.open("r+b") as file:
                file.seek(chance.randrange(size))
                was = file.read(1)
                file.seek(-1, 1)
                file.write(bytes([was[0] ^ 0x80]))
        elif damage == "cut":
            os.truncate(path, chance.randrange(size))
        else:
            path.unlink()
            if damage == "a folder":
                path.mkdir()
        assert store.find(machine(paths), on) is None
        assert not made.path.exists()
        assert "is damaged and will be made again" in caplog.text


@pytest.mark.parametrize("elsewhere", ["a file", "an empty folder"])
def test_what_was_put_in_its_place_is_removed(paths: Paths, program: Path, tmp_path: Path, elsewhere: str) -> None:
    """A link, also one that was left half removed; what it leads to stays, and the next template can be made."""
    store, on = TemplateStore(paths.templates, Limits()), host(program)
    made = publish(store, machine(paths), on)
    shutil.rmtree(made.path)
    target = tmp_path / "elsewhere"
    target.touch() if elsewhere == "a file" else target.mkdir()
    for path in (made.path, made.path.with_name(f".{made.path.name}.gone")):
        path.symlink_to(target)
    assert store.find(machine(paths), on) is None
    assert list(paths.templates.glob("*vm-*cpus*")) == []
    made.path.touch()
    assert publish(store, machine(paths), on).path == made.path
    assert target.exists()


def test_bytes_that_changed_without_a_trace(paths: Paths, program: Path) -> None:
    """They are not looked for at each start, but by the doctor, and when a restored guest says that its shed is bad."""
    store, on = TemplateStore(paths.templates, Limits()), host(program)
    made = publish(store, machine(paths), on)
    memory = made.path / "memory"
    times = memory.stat()
    assert store.is_whole(made)
    assert not store.is_whole(replace(made, mark="of another one"))
    with memory.open("r+b") as file:
        file.write(b"other bytes")
    os.utime(memory, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.find(machine(paths), on) == made
    with pytest.raises(ValueError, match="memory"):
        templates.check(made.path, thoroughly=True)
    assert not store.is_whole(made)
    store.drop(made)
    assert not store.is_whole(made)


def test_the_least_recently_used_goes_first(paths: Paths, program: Path) -> None:
    """Three are kept, then as many as there is room for; the newest stays in any case."""
    on = host(program)
    store = TemplateStore(paths.templates, Limits(count=3))
    for cpus in (1, 2, 3):
        made = publish(store, machine(paths, cpus=cpus), on)
        os.utime(made.path / "template.json", (cpus, cpus))
    assert store.find(machine(paths, cpus=1), on)  # used just now
    publish(store, machine(paths, cpus=4), on)
    assert [cpus for cpus in range(1, 5) if store.find(machine(paths, cpus=cpus), on)] == [1, 3, 4]
    small = TemplateStore(paths.templates, Limits(disk_bytes=1))
    publish(small, machine(paths, cpus=5), on)
    assert [path.name[:7] for path in paths.templates.glob("vm-*")] == ["vm-5cpu"]


def test_the_default_shape_stays(paths: Paths, program: Path) -> None:
    """However long ago it was used, and whatever else there is; of several kits, the one that was used last."""
    on = host(program)
    store = TemplateStore(paths.templates, Limits(count=2, usual=(1, 256)))
    for cpus in (1, 2, 3, 4):
        made = publish(store, machine(paths, cpus=cpus), on)
        os.utime(made.path / "template.json", (cpus, cpus))
    assert [cpus for cpus in range(1, 5) if store.find(machine(paths, cpus=cpus), on)] == [1, 4]
    full = TemplateStore(paths.templates, Limits(disk_bytes=1, usual=(1, 256)))
    publish(full, machine(paths, cpus=5), on)
    assert sorted(path.name[:7] for path in paths.templates.glob("vm-*")) == ["vm-1cpu", "vm-5cpu"]


def test_two_do_not_make_at_once_and_no_room_is_told(
    paths: Paths, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is told at once; a disk without room is not filled."""
    store, on = TemplateStore(paths.templates, Limits()), host(program)
    with store.lock(), pytest.raises(ConflictError), TemplateStore(paths.templates, Limits()).lock():
        pass
    with store.lock():
        plan = store.begin(machine(paths, memory_mb=512), on)
        assert store.unfinished() == {plan.state_dir: 512}
        shutil.rmtree(plan.state_dir)
    monkeypatch.setattr(templates, "_NEEDED", 1 << 60)
    with pytest.raises(StorageError, match=r"no space for a template in .*: .* free, 1048576 TiB needed"):
        store.begin(machine(paths), on)
    assert store.unfinished() == {}


def test_prune_takes_what_nobody_restores_from(paths: Paths, program: Path) -> None:
    """Those of a runtime that is gone, of another QEMU, and what a removal that was cut short has left; a useful one
    stays.
    """
    store, on = TemplateStore(paths.templates, Limits()), host(program)
    saved = QemuBackend(paths).capabilities.templates
    runtime = LayoutStore(paths.images).blobs / RUNTIME
    runtime.parent.mkdir(parents=True)
    runtime.touch()
    made = publish(store, machine(paths), on)
    then = time.time() - orphans.OLD - 60
    os.utime(made.path, (then, then))
    assert orphans.find_orphans(paths, saved) == []
    assert [orphan.path for orphan in orphans.find_orphans(paths, saved, gone={runtime})] == [made.path]
    record = json.loads((made.path / "template.json").read_text())
    assert record["identity"]["qemu"] == accel.version(program)
    left, link = paths.templates / ".vm-x.gone", paths.templates / ".vm-y.gone"
    left.mkdir()
    link.symlink_to(paths.data)
    for path in (left, link):
        os.utime(path, (then, then), follow_symlinks=False)
    program.write_text(program.read_text() + "# patched\n")
    found = orphans.find_orphans(paths, saved)
    assert [orphan.path for orphan in found] == [left, link, made.path]
    with store.lock():
        assert not any(orphans.remove_orphan(orphan) for orphan in found)
    assert all(orphans.remove_orphan(orphan) for orphan in found)
    assert list(paths.templates.glob("*vm-*")) == []
