"""Folders of a folder, told as they come and go, and what holds them in a guest."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.guest.names import Names
from shed.sheds import foldernames
from shed.sheds.foldernames import FolderNames
from support.waiting import wait_until


class Guest:
    """What is told, as the guest takes it: the names that are told, and all records."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.known: set[bytes] = set()

    def take(self, data: bytes) -> None:
        """Take records."""
        assert data.endswith(b"\0")
        for record in data[:-1].split(b"\0"):
            path = record[1:]
            self.known = {name for name in self.known if path and name != path and not name.startswith(path + b"/")}
            if record[:1] == b"+":
                above = path.rpartition(b"/")[0]
                assert not above or above in self.known, record
                self.known.add(path)
            self.records.append(record)


@contextlib.contextmanager
def following(folder: Path, *, most: int = 1000) -> Iterator[Guest]:
    """Follow a folder."""
    guest = Guest()
    names = FolderNames(str(folder), guest.take, most=most)
    thread = threading.Thread(target=names.run)
    thread.start()
    try:
        yield guest
    finally:
        names.stop()
        thread.join(60)
        assert not thread.is_alive()
        names.stop()


def there(folder: Path) -> set[bytes]:
    """Return the folders that there are."""
    return {
        os.fsencode(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()
    }


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foldernames, "_SETTLED", 0.01)


def test_what_is_there_and_what_changes(tmp_path: Path) -> None:
    """All folders at first; then each that goes, comes, moves, or is another thing now; with whatever bytes."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/file").touch()
    (tmp_path / os.fsdecode(b"\xff\n")).mkdir()
    with following(tmp_path) as guest:
        wait_until(lambda: guest.known == {b"a", b"a/b", b"a/b/c", b"\xff\n"}, what="all folders")
        (tmp_path / "a/b/c").rmdir()
        wait_until(lambda: guest.records[-1] == b"-a/b/c", what="a folder goes")
        (tmp_path / "a/new").mkdir()
        wait_until(lambda: b"a/new" in guest.known, what="a folder comes")
        (tmp_path / "a/new/below").mkdir()
        wait_until(lambda: b"a/new/below" in guest.known, what="a folder in it")
        (tmp_path / "a").rename(tmp_path / "moved")
        wait_until(lambda: guest.known == there(tmp_path), what="a folder moves, with all below")
        (tmp_path / "moved/b").rmdir()
        (tmp_path / "moved/b").symlink_to("new")
        wait_until(lambda: guest.known == there(tmp_path), what="a link is in its place")
        (tmp_path / "other").mkdir()
        (tmp_path / "other").rename(tmp_path / "moved/new/below")
        wait_until(lambda: guest.records[-2:] == [b"-moved/new/below", b"+moved/new/below"], what="one takes its place")


def test_a_folder_that_moves_to_where_nobody_looked_yet(tmp_path: Path) -> None:
    """It is found there before it is told that it went, and what is in it is told, too."""
    for name in "ab":
        (tmp_path / name / "deep/x").mkdir(parents=True)
    guest = Guest()
    moved: list[Path] = []

    def take(data: bytes) -> None:
        guest.take(data)
        for name, other in ("ab", "ba"):
            if f"+{name}/deep/x".encode() in guest.records and not moved:
                moved.append((tmp_path / name / "deep").rename(tmp_path / other / "deep/moved"))

    names = FolderNames(str(tmp_path), take)
    thread = threading.Thread(target=names.run)
    thread.start()
    try:
        wait_until(lambda: bool(moved) and guest.known == there(tmp_path), what="what there is")
    finally:
        names.stop()
        thread.join(60)


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """Neither at first nor later is anything told of what is behind a link."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (outside / "secret").mkdir(parents=True)
    (folder / "dir").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    with following(folder) as guest:
        wait_until(lambda: guest.known == {b"dir"}, what="the folder")
        (folder / "dir").rmdir()
        (folder / "dir").symlink_to(outside)
        (folder / "last").mkdir()
        wait_until(lambda: guest.known == {b"last"}, what="the folder again")
        (outside / "another").mkdir()
        (folder / "later").mkdir()
        wait_until(lambda: b"later" in guest.known, what="a later folder")
        assert not [record for record in guest.records if b"secret" in record or b"another" in record]


def test_no_more_than_so_many(tmp_path: Path) -> None:
    """Those near the top first; one that goes makes room for one that comes."""
    for number in range(5):
        (tmp_path / f"d{number}/f").mkdir(parents=True)
    with following(tmp_path, most=7) as guest:
        wait_until(lambda: len(guest.known) == 7, what="seven folders")
        assert {f"d{number}".encode() for number in range(5)} < guest.known
        (tmp_path / "new").mkdir()
        held = next(name for name in guest.known if b"/" in name)
        (tmp_path / os.fsdecode(held)).rmdir()
        wait_until(lambda: held not in guest.known, what="one goes")
        (tmp_path / "newer").mkdir()
        wait_until(lambda: b"newer" in guest.known, what="one comes")
        assert len(guest.known) == 7


def test_a_flood_of_changes_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest is told to forget all; after a rest, it is told again."""
    monkeypatch.setattr(foldernames, "_CHANGES", 0.001)
    monkeypatch.setattr(foldernames, "_CHANGES_BURST", 100)
    monkeypatch.setattr(foldernames, "_FIRST_REST", 0.01)
    (tmp_path / "kept").mkdir()
    with following(tmp_path) as guest:
        wait_until(lambda: guest.known == {b"kept"}, what="the folder")
        for number in range(300):
            (tmp_path / f"{number}").mkdir()
            (tmp_path / f"{number}").rmdir()
        wait_until(lambda: b"-" in guest.records, what="all is forgotten")
        wait_until(lambda: guest.records[-1] == b"+kept", what="it is told again")


@pytest.mark.parametrize("seed", range(5))
def test_any_changes_at_all(tmp_path: Path, seed: int) -> None:
    """After any sequence of them, what is told is what there is."""
    chance = random.Random(seed)
    with following(tmp_path) as guest:
        for _ in range(300):
            with contextlib.suppress(OSError):
                _change(chance, tmp_path)
        wait_until(lambda: guest.known == there(tmp_path), what="what there is")


def _change(chance: random.Random, top: Path) -> None:
    paths = [top, *top.rglob("*")]
    at = chance.choice([path for path in paths if path.is_dir() and not path.is_symlink()]) / chance.choice("abcd")
    what: list[Callable[[], object]] = [at.mkdir, at.touch, at.unlink, at.rmdir, lambda: at.symlink_to("a")]
    if len(paths) > 1:
        what.append(lambda: chance.choice(paths[1:]).rename(at))
    chance.choice(what)()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """An error, at once."""
    names = FolderNames(str(tmp_path / "missing"), lambda _: None)
    with pytest.raises(FileNotFoundError):
        names.run()


def test_a_folder_that_became_a_link(tmp_path: Path) -> None:
    """Nothing of what it leads to is told."""
    (tmp_path / "secret/inside").mkdir(parents=True)
    (tmp_path / "folder").symlink_to("secret")
    for path in ("folder", "folder/inside"):
        with pytest.raises(NotADirectoryError):
            FolderNames(str(tmp_path / path), lambda _: pytest.fail("told")).run()


def test_a_file_system_that_does_not_tell_changes() -> None:
    """None of its folders is told: they could go without a word."""
    names = FolderNames("/proc", lambda _: pytest.fail("told"))
    with pytest.raises(OSError, match="does not tell all changes"):
        names.run()


def held() -> set[str]:
    """Return where the descriptors of this process lead."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


def test_folders_are_held_and_let_go(tmp_path: Path) -> None:
    """Each by a descriptor, never a link; one that goes takes those below along, and all go at the end."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "l").symlink_to("a")
    names = Names(str(tmp_path))
    for record in (b"+a", b"+a/b", b"+a/b/c", b"+l", b"+file", b"+a/missing", b"+x/y", b"-x/y", b"-nothing"):
        names.take(record)
    paths = {f"{tmp_path}{below}" for below in ("", "/a", "/a/b", "/a/b/c")}
    assert {path for path in held() if path.startswith(str(tmp_path))} == paths
    names.take(b"+a/b")
    assert f"{tmp_path}/a/b/c" not in held()
    names.take(b"-a")
    assert {path for path in held() if path.startswith(str(tmp_path))} == {str(tmp_path)}
    names.take(b"+a")
    names.take(b"-")
    assert f"{tmp_path}/a" not in held()
    names.take(b"+a")
    names.close()
    assert not [path for path in held() if path.startswith(str(tmp_path))]
