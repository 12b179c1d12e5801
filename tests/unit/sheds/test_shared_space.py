"""What clones share counts once, and what is a thing's own is told."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from shed.fsutil import FICLONE
from shed.linux.fiemap import shared_extents
from shed.oci.store import LayoutStore
from shed.sheds import space
from shed.sheds.space import counted_twice
from shed.sheds.usage import usage
from support.servers.world import World

MIB = 1 << 20


@pytest.mark.parametrize(
    ("extents", "twice"),
    [
        ([], 0),
        ([(0, 10), (10, 10)], 0),
        ([(0, 10), (0, 10)], 10),
        ([(0, 10), (5, 10), (0, 20)], 20),
        ([(50, 10), (0, 100), (90, 20)], 20),
    ],
)
def test_the_union_of_extents(extents: list[tuple[int, int]], twice: int) -> None:
    """However they lie on each other."""
    assert counted_twice(extents) == counted_twice(extents[::-1]) == twice


def write(path: Path, size: int) -> None:
    """Write a file of random bytes, which is on the disk then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def test_files_that_are_no_clones_share_nothing(tmp_path: Path) -> None:
    """On any file system: it says so, or it says nothing, which is an error of the system."""
    write(tmp_path / "one", MIB)
    with (tmp_path / "one").open("rb") as file:
        try:
            assert shared_extents(file.fileno()) == []
        except OSError:
            assert space.extents_of(tmp_path) == []


def test_real_clones(tmp_path: Path) -> None:
    """What was written since is a file's own; the rest is where the other one has it."""
    write(tmp_path / "one", 4 * MIB)
    with (tmp_path / "one").open("rb") as source, (tmp_path / "two").open("wb") as target:
        try:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError as error:
            pytest.skip(f"the file system has no reflinks: {error.strerror}")
    with (tmp_path / "two").open("r+b") as file:
        file.seek(MIB)
        file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    one, two = space.extents_of(tmp_path / "one"), space.extents_of(tmp_path / "two")
    assert one == two
    assert sum(length for _, length in one) == 3 * MIB
    assert counted_twice([*one, *two]) == 3 * MIB


def test_what_all_takes_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot and a shed that share: in each all of it, in total once."""
    files = {"uppers/dev/upper.ext4": 3, "snapshots/a/upper.ext4": 2, "snapshots/b/upper.ext4": 2}
    (world.paths.instances / "dev").mkdir(parents=True)
    for name, size in files.items():
        write(world.paths.data / name, size * MIB)
    before = usage(world.paths, LayoutStore(world.paths.images), None)

    def shared(file: int) -> list[tuple[int, int]]:
        name = str(Path(f"/proc/self/fd/{file}").readlink()).removeprefix(f"{world.paths.data}/")
        return {
            "uppers/dev/upper.ext4": [(0, MIB)],
            "snapshots/a/upper.ext4": [(0, MIB), (8 * MIB, MIB)],
            "snapshots/b/upper.ext4": [(8 * MIB, MIB)],
        }.get(name, [])

    monkeypatch.setattr(space, "shared_extents", shared)
    after = usage(world.paths, LayoutStore(world.paths.images), None)

    def own(kind: str) -> dict[str, int]:
        return {
            item["name"]: (item["disk_bytes"] - item["unique_bytes"]) // MIB for item in after["kinds"][kind]["items"]
        }

    assert (own("sheds"), own("snapshots")) == ({"dev": 1}, {"a": 2, "b": 1})
    once = {kind: before["kinds"][kind]["disk_bytes"] - after["kinds"][kind]["disk_bytes"] for kind in before["kinds"]}
    assert {kind: saved for kind, saved in once.items() if saved} == {"snapshots": MIB}
    assert before["total"]["disk_bytes"] - after["total"]["disk_bytes"] == 2 * MIB
