"""Features: what they say of themselves, their files, their order, and what pins them."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.budget import Reserve
from shed.errors import DataError, UsageError
from shed.images.devcontainer import files
from shed.images.devcontainer.feature import Feature, Metadata
from shed.images.devcontainer.files import (
    copy_context,
    copy_feature,
    counting,
    read_below,
    tree_digest,
    unpack_feature,
)
from shed.images.devcontainer.lock import lock_path, read_lock, write_lock
from shed.images.devcontainer.order import install_order, without_version
from shed.images.devcontainer.values import variable
from shed.oci.digest import digest_bytes
from support.layers.tars import Item, device, file, folder, hardlink, source, symlink, tar


def feature(name: str, *, after: tuple[str, ...] = (), options: dict[str, str] | None = None, **says: Any) -> Feature:
    """Return a feature of the registry r.example."""
    resource = f"r.example/f/{name.partition(':')[0]}"
    metadata = Metadata(name.partition(":")[0], installs_after=after, **says)
    digest = digest_bytes(name.encode())
    return Feature(
        f"r.example/f/{name}", resource, name.partition(":")[2], digest, digest, options or {}, metadata, Path()
    )


def order(*features: Feature, hard: dict[str, list[str]] | None = None, first: tuple[str, ...] = ()) -> list[str]:
    """Return the short names of `features` in their order; `hard` has short names, too."""
    keys = {each.name.rpartition("/")[2]: each.key for each in features}
    needed = {keys[name]: [keys[on] for on in each] for name, each in (hard or {}).items()}
    return [each.name.rpartition("/")[2] for each in install_order(features, needed, first)]


def test_the_order_of_features() -> None:
    """By name in a round; after what they need; after what they want to follow, if that is there; wishes of the user
    come first, as far as needs allow.
    """
    a, b, c, d = (feature(name) for name in "abcd")
    assert order(d, c, b, a) == ["a", "b", "c", "d"]
    assert order(a, b, c, d, hard={"a": ["d"], "d": ["c"]}) == ["b", "c", "d", "a"]
    soft = feature("a", after=("r.example/f/c", "r.example/f/absent"))
    assert order(soft, b, c) == ["b", "c", "a"]
    renamed = feature("new", legacy_ids=("c",))
    assert order(soft, renamed) == ["new", "a"]
    assert order(a, b, c, first=("r.example/f/c", "R.example/f/b")) == ["c", "b", "a"]
    assert order(a, b, c, hard={"c": ["b"]}, first=("r.example/f/c",)) == ["a", "b", "c"]
    assert order(feature("x:latest"), feature("x:2"), feature("x:1.10"), feature("x:1.9")) == [
        "x:1.9", "x:1.10", "x:2", "x:latest",
    ]  # fmt: skip
    many, one, other = (feature("x:1", options=options) for options in ({"a": "1", "b": "1"}, {"a": "2"}, {"a": "1"}))
    assert install_order([one, many, other], {}) == [many, other, one]


def test_features_that_wait_for_each_other() -> None:
    """They are named, whichever way they wait."""
    a, b = feature("a", after=("r.example/f/b",)), feature("b")
    with pytest.raises(UsageError, match=r"wait for each other: r\.example/f/a, r\.example/f/b"):
        order(a, b, hard={"b": ["a"]})


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12), st.permutations(range(7)))
def test_any_needs_that_can_be_met_are_met(pairs: list[tuple[int, int]], mixed: list[int]) -> None:
    """Each feature once, after all that it needs, and in the same order however they were named."""
    names = [f"f{number}" for number in range(7)]
    hard: dict[str, list[str]] = {}
    for one, other in pairs:
        if one != other:
            hard.setdefault(names[max(one, other)], []).append(names[min(one, other)])
    found = order(*(feature(name) for name in names), hard=hard)
    assert sorted(found) == names
    assert all(found.index(on) < found.index(name) for name, each in hard.items() for on in each)
    assert order(*(feature(names[number]) for number in mixed), hard=hard) == found


def test_names_and_variables() -> None:
    """Without tag, digest and capitals; what a shell can name, in capitals."""
    assert without_version("GHCR.io:5000/A/b:1@sha256:00") == "ghcr.io:5000/a/b"
    assert without_version("./mine") == "./mine"
    assert [variable(name) for name in ("version", "1st-try", "a.b c", "_x", "é")] == [
        "VERSION",
        "_ST_TRY",
        "A_B_C",
        "_X",
        "_",
    ]


def test_what_a_feature_says(tmp_path: Path) -> None:
    """Defaults become variables beside what was given; a strict list is kept to; the rest is noted."""
    document = {
        "id": "node",
        "version": "1.2.3",
        "options": {
            "version": {"type": "string", "proposals": ["lts"], "default": "lts"},
            "pnpm": {"type": "boolean", "default": False},
            "kind": {"enum": ["a", "b"]},
        },
        "containerEnv": {"PATH": "/n:${PATH}"},
        "dependsOn": {"r.example/f/base": {"x": True}},
        "entrypoint": "/init",
        "postCreateCommand": "npm ci",
        "deprecated": True,
    }
    metadata = Metadata.parse(json.dumps(document).encode())
    assert metadata.depends_on == {"r.example/f/base": {"x": "true"}}
    assert metadata.kept == {"entrypoint": "/init", "postCreateCommand": "npm ci"}

    def given_options(**options: str) -> Feature:
        digest = digest_bytes(b"")
        return Feature("r.example/f/node", "r.example/f/node", "1", digest, digest, options, metadata, tmp_path)

    assert given_options(version="22", kind="b").environment() == {"VERSION": "22", "PNPM": "false", "KIND": "b"}
    assert given_options().environment()["KIND"] == ""
    with pytest.raises(UsageError, match="kind cannot be c"):
        given_options(kind="c").environment()
    notes = given_options(other="x").notes()
    assert [note.split(": ")[1] for note in notes] == [
        "entrypoint", "it is deprecated", "it has no option other; it is passed on all the same",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"id": "../x"}',
        b'{"id": 1}',
        b'{"id": "a", "options": {"b": 1}}',
        b'{"id": "a", "options": {"b": {"default": {}}}}',
        b'{"id": "a", "options": {"b": {"enum": "c"}}}',
        b'{"id": "a", "containerEnv": {"A": "b\\nRUN evil"}}',
        b'{"id": "a", "containerEnv": {"A B": "c"}}',
        b'{"id": "a", "installsAfter": "b"}',
        b'{"id": "a", "dependsOn": {"b": 1.5}}',
        b'{"id": "a", "version": "' + b"1" * 200 + b'"}',
        b'{"id": "a", "x": ' + b"[" * 40 + b"]" * 40 + b"}",
    ],
)
def test_what_a_feature_may_not_say(text: bytes) -> None:
    """It is a `ValueError`, and nothing else."""
    with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong with it
        Metadata.parse(text)


def unpack(place: Path, data: bytes) -> Path:
    """Unpack an archive into a new folder below `place`."""
    target = place / "unpacked/feature"
    unpack_feature(source(data), target, place, counting(Reserve(place, 0)).part("feature x"))
    return target


def test_archives_as_they_are_published(tmp_path: Path) -> None:
    """With and without compression, with names of any kind; rights are those of files and of programs, and nothing
    else.
    """
    items = (folder("./"), file("./install.sh", b"#!", mode=0o4777), folder("a"), file("a/b", b"", mode=0o600))
    for number, data in enumerate((tar(*items), gzip.compress(tar(*items)))):
        (tmp_path / str(number)).mkdir()
        found = unpack(tmp_path / str(number), data)
        assert {path.name: path.stat().st_mode & 0o7777 for path in found.rglob("*") if path.is_file()} == {
            "install.sh": 0o755, "b": 0o644,
        }  # fmt: skip
        assert (found / "install.sh").read_bytes() == b"#!"


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        ([file("../out", b"x")], "leads out of the root"),
        ([file("a/../../out", b"x")], "leads out of the root"),
        ([symlink("a", "/etc"), file("a/passwd", b"x")], "is a link or a device"),
        ([file("a", b"x"), hardlink("b", "a")], "is a link or a device"),
        ([device("a", tarfile.CHRTYPE, 1, 3)], "is a link or a device"),
        ([device("a", tarfile.FIFOTYPE)], "is a link or a device"),
        ([file("a", b"x"), file("a/b", b"x")], "is a file and a folder"),
        ([folder("a"), file("a", b"x")], "is a file and a folder"),
        ([file(f"f{number}") for number in range(101)], "more than 100 files"),
    ],
    ids=["up", "up-inside", "through-a-link", "hardlink", "device", "fifo", "below-a-file", "over-a-folder", "many"],
)
def test_hostile_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: list[Item], wrong: str) -> None:
    """Nothing comes out of the folder, and nothing but files and folders comes into it."""
    monkeypatch.setattr(files, "MOST_FILES", 100)
    with pytest.raises(DataError, match=wrong):
        unpack(tmp_path, tar(*items))
    assert {path.name for path in tmp_path.iterdir()} == {"unpacked"}


def test_archives_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that unpack to more than is allowed."""
    monkeypatch.setattr(files, "MOST_BYTES", most := 8 << 20)
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed:
        info = tarfile.TarInfo("zeros")
        info.size = most + 1
        packed.write(info.tobuf())
        for _ in range(most >> 20):
            packed.write(bytes(1 << 20))
        packed.write(bytes(1024))
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(tmp_path, out.getvalue())


@pytest.mark.parametrize(
    "data",
    [b"x" * 2000, gzip.compress(tar(file("a", b"x" * 4000)), mtime=0)[:-20], b"BZh9" + bytes(600), b""],
    ids=["words", "cut", "bzip2", "nothing"],
)
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    """Bytes of any kind, one that was cut, and a compression that is not known; nothing at all is an empty one."""
    if not data:
        assert [*unpack(tmp_path, data).iterdir()] == []
        return
    with pytest.raises(DataError):
        unpack(tmp_path, data)


def test_folders_of_a_project(tmp_path: Path) -> None:
    """They are copied with their rights; a link in one is refused; the digest follows names, rights and contents."""
    place = tmp_path / "mine"
    (place / "deep").mkdir(parents=True)
    (place / "install.sh").write_text("one")
    (place / "install.sh").chmod(0o700)
    (place / "deep/file").write_text("two")
    part = counting(Reserve(tmp_path, 0)).part("feature ./mine")
    copy_feature(tmp_path, place, tmp_path / "copy", part)
    assert (tmp_path / "copy/install.sh").stat().st_mode & 0o777 == 0o755
    first = tree_digest(tmp_path / "copy")
    os.utime(tmp_path / "copy/deep/file", (1, 1))
    assert tree_digest(tmp_path / "copy") == first
    (tmp_path / "copy/deep/file").write_text("owt")
    second = tree_digest(tmp_path / "copy")
    (tmp_path / "copy/deep/file").rename(tmp_path / "copy/deep/elif")
    assert len({first, second, tree_digest(tmp_path / "copy")}) == 3
    (place / "link").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="link is a link or a device"):
        copy_feature(tmp_path, place, tmp_path / "other", part)


def test_a_context_is_copied(tmp_path: Path) -> None:
    """With rights and links as they are, so that it has the same digest; a link that is in the way is not followed."""
    place = tmp_path / "project/context"
    (place / "closed").mkdir(parents=True)
    (place / "closed/run").write_text("run")
    (place / "closed/run").chmod(0o710)
    (place / "closed").chmod(0o500)
    (place / "link").symlink_to("/etc")
    os.mkfifo(place / "pipe")
    copy_context(tmp_path / "project", place, tmp_path / "copy", Reserve(tmp_path, 0))
    assert tree_digest(tmp_path / "copy") == tree_digest(place)
    assert not (tmp_path / "copy/pipe").exists()
    assert (tmp_path / "copy/link").readlink() == Path("/etc")
    assert read_below(tmp_path / "project", place / "closed/run", 3) == b"run"
    with pytest.raises(DataError, match="more than 2 bytes"):
        read_below(tmp_path / "project", place / "closed/run", 2)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "project/swapped").symlink_to("../outside")
    with pytest.raises(DataError, match="leads out of"):
        copy_context(tmp_path / "project", tmp_path / "project/swapped", tmp_path / "other", Reserve(tmp_path, 0))
    (place / "secret").symlink_to("../../outside/secret")
    with pytest.raises(DataError, match="it is a link"):
        read_below(tmp_path / "project", place / "secret", 100)


def test_the_lock_file(tmp_path: Path) -> None:
    """It is found beside its file, says what was resolved, and is read back; one that was bent is refused."""
    assert lock_path(Path("p/.devcontainer.json")) == Path("p/.devcontainer-lock.json")
    path = lock_path(tmp_path / "devcontainer.json")
    assert read_lock(tmp_path, path) == {}
    a, b = feature("A:1", depends_on={"r.example/f/B:2": {}}, version="1.2.3"), feature("B:2")
    local = Feature("./c", "./c", "", a.digest, None, {}, Metadata("c"), tmp_path)
    write_lock(path, [b, a, local])
    assert read_lock(tmp_path, path) == {"r.example/f/a:1": a.digest, "r.example/f/b:2": b.digest}
    entry = json.loads(path.read_text())["features"]["r.example/f/a:1"]
    assert entry == {
        "version": "1.2.3",
        "resolved": f"{a.resource}@{a.digest}",
        "integrity": a.digest,
        "dependsOn": ["r.example/f/b:2"],
    }
    for bent in (
        {"resolved": f"r.example/f/other@{a.digest}", "integrity": a.digest},
        {"resolved": f"r.example/f/a@{a.digest}", "integrity": b.digest},
        {"resolved": "r.example/f/a:1", "integrity": a.digest},
        "x",
    ):
        path.write_text(json.dumps({"features": {"r.example/f/a:1": bent}}))
        with pytest.raises(DataError, match="not locked to a digest of its own"):
            read_lock(tmp_path, path)
    for text in ("[", "{}"):
        path.write_text(text)
        with pytest.raises(DataError):
            read_lock(tmp_path, path)


def test_lock_files_that_are_no_files(tmp_path: Path) -> None:
    """Links are not followed, wherever they lead, and nothing is waited for."""
    project = tmp_path / "project"
    project.mkdir()
    path = lock_path(project / "devcontainer.json")
    write_lock(tmp_path / "outside.json", [feature("a:1")])
    for target in ("../outside.json", path.name, "absent"):
        path.symlink_to(target)
        with pytest.raises(DataError, match="cannot be read: it is a link"):
            read_lock(project, path)
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError):
        read_lock(project, path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError):
        read_lock(project, path)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes away, or a folder that may not be looked into, ends the work: nothing is left out unseen."""
    project = tmp_path / "project"
    (project / "closed").mkdir(parents=True)
    (project / "closed/file").touch()
    real = os.open

    def refuse(path: Any, flags: int, *more: Any, **other: Any) -> int:
        if path == refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *more, **other)

    monkeypatch.setattr(os, "open", refuse)
    for refused in ("closed", "file"):
        with pytest.raises(DataError, match="cannot be read: Permission denied"):
            tree_digest(project)
        with pytest.raises(DataError, match="cannot be read: Permission denied"):
            copy_context(project, project, tmp_path / refused, Reserve(tmp_path, 0))
