"""The reader gives back what the writer was given, and its ways of asking agree with each other."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.entries import MAX_PATH, Entry
from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.erofs.extents import Form
from shed.erofs.reader import Image
from shed.erofs.verifier import verify_contents
from shed.errors import NotFoundError
from support.erofs.images import Damaged, make_image, sample_entries
from support.erofs.trees import Bytes, file, folder, noise, symlink, text


@pytest.fixture(scope="module", params=["lz4", "lz4hc", "zstd", "none"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("sample") / "image", sample_entries(), request.param)


@pytest.fixture
def image(sample: Path) -> Iterator[Image]:
    with Image.open(sample) as opened:
        yield opened


CONTENTS = {entry.path: entry for entry in sample_entries() if entry.content}


def contents(entry: Entry) -> bytes:
    assert entry.content
    return entry.content.pread(entry.size, 0)


def test_walk_yields_every_name_with_parents_first(image: Image) -> None:
    """In the order of the entries that went in."""
    assert [path for path, _ in image.walk()] == [entry.path for entry in sample_entries()]


def test_walk_of_a_folder_is_relative_to_it(image: Image) -> None:
    """Its own path is empty."""
    assert [path for path, _ in image.walk(image.lookup(b"folder"))] == [b"", b"inner"]


def test_data_comes_back_whole_and_in_chunks(image: Image) -> None:
    """Both ways give what went in."""
    for path, entry in CONTENTS.items():
        inode = image.lookup(path)
        assert b"".join(image.chunks(inode)) == contents(entry)
        assert image.read(inode, 0, inode.size) == contents(entry)


def test_any_range_is_the_same_as_in_the_whole(image: Image) -> None:
    """At all edges of blocks and clusters, and at random places."""
    source = random.Random(5)
    for path, entry in CONTENTS.items():
        data, inode = contents(entry), image.lookup(path)
        edges = [0, 1, 4095, 4096, 4097, 131071, 131072, len(data) - 1, len(data), len(data) + 5]
        for start in edges + [source.randrange(len(data)) for _ in range(20)]:
            for length in (0, 1, 4096, source.randrange(1, 150_000)):
                assert image.read(inode, start, length) == data[start : start + length], (path, start, length)


def test_extents_cover_a_file_without_gaps(image: Image) -> None:
    """One after the other, to the file's end."""
    for path, entry in CONTENTS.items():
        position = 0
        for extent in image.extents(image.lookup(path)):
            assert extent.start == position
            position += extent.length
        assert position == entry.size


def test_attributes_come_back(image: Image) -> None:
    """Owners, times before 1970, devices and xattrs."""
    root, inner = image.root, image.lookup(b"folder/inner")
    assert (root.mtime, root.mtime_ns) == (-5, 7)
    assert (inner.uid, inner.gid, inner.mtime, inner.mtime_ns) == (1000, 70000, 1700000000, 999999999)
    assert image.lookup(b"device").device == (4, 64)
    assert inner.device is None
    assert image.lookup(b"large").nid == image.lookup(b"large-too").nid
    assert image.lookup(b"large").nlink == 2
    assert image.xattrs(image.lookup(b"attributes")) == {
        b"user.one": b"1",
        b"user.two": b"2",
        b"security.capability": bytes(20),
    }
    assert image.xattrs(inner) == {}


def test_lookup_follows_symlinks_only_when_asked(image: Image) -> None:
    """Relative and absolute ones, and ones that climb above the root."""
    inner = image.lookup(b"folder/inner").nid
    assert image.lookup(b"link").kind == "symlink"
    assert image.lookup(b"link", follow=True).nid == inner
    assert image.lookup(b"/up", follow=True).nid == inner
    assert image.lookup(b"folder/../../folder/./inner", follow=True).nid == inner
    assert image.lookup(b"").nid == image.lookup(b"/").nid == image.root.nid


@pytest.mark.parametrize(
    ("path", "follow"), [(b"no", False), (b"small/x", False), (b"folder/..", False), (b"link/x", True), (b"loop", True)]
)
def test_lookup_of_what_is_not_there(image: Image, path: bytes, follow: bool) -> None:
    """It is not found, with and without following symlinks."""
    with pytest.raises(NotFoundError):
        image.lookup(path, follow=follow)


def test_asking_an_inode_for_what_it_is_not(image: Image) -> None:
    """The error says what it is not."""
    with pytest.raises(ErofsError, match="not a symlink"):
        image.readlink(image.lookup(b"small"))
    with pytest.raises(ErofsError, match="not a directory"):
        list(image.iterdir(image.lookup(b"small")))


def test_extract_keeps_holes(image: Image, tmp_path: Path) -> None:
    """Zeros take no space."""
    for name in (b"zeros", b"large"):
        target = tmp_path / os.fsdecode(name)
        with target.open("w+b") as out:
            image.extract(image.lookup(name), out.fileno())
        assert target.read_bytes() == contents(CONTENTS[name])
    assert (tmp_path / "zeros").stat().st_blocks == 0


def test_an_absolute_link_stays_inside_the_image(tmp_path: Path) -> None:
    """It starts at the image's root, not at the host's."""
    image = make_image(
        tmp_path / "image", [folder(""), folder("etc"), symlink("etc/self", "/etc"), file("passwd", b"here")]
    )
    with Image.open(image) as opened:
        assert opened.lookup(b"etc/self/../passwd", follow=True).nid == opened.lookup(b"passwd").nid


def test_a_loop_ends_the_walk(sample: Path, tmp_path: Path) -> None:
    """A folder that is inside itself is damage."""
    damaged = Damaged(sample, tmp_path / "loop")
    inode = damaged.inode("folder")
    at = inode.body + 2 * layout.DIRENT.size
    damaged.put_number(at, damaged.inode("").nid, 8)
    damaged.put_number(at + 10, layout.FT_DIR, 1)
    with Image.open(damaged.save()) as opened, pytest.raises(ErofsError) as caught:
        list(opened.walk())
    assert caught.value.rule == "directory-loop"


def test_a_path_that_no_program_can_open_ends_the_walk(tmp_path: Path) -> None:
    """A folder that hangs below another deep one makes paths of any length: the walk ends at what Linux opens."""
    deep = [folder("/".join([top] + ["a"] * depth)) for top in "xy" for depth in range(1200)]
    last = deep[1199].path.decode()
    deep.insert(1200, folder(f"{last}/z"))
    damaged = Damaged(make_image(tmp_path / "image", [folder(""), *deep]), tmp_path / "deep")
    at = damaged.inode(last).body + 2 * layout.DIRENT.size
    assert damaged.number(at, 8) == damaged.inode(f"{last}/z").nid
    damaged.put_number(at, damaged.inode("y").nid, 8)
    with Image.open(damaged.save()) as opened:
        longest = 0
        with pytest.raises(ErofsError) as caught:
            for path, _ in opened.walk():
                longest = max(longest, len(path))
    assert caught.value.rule == "path-too-long"
    assert longest == MAX_PATH


def test_clusters_of_before_zero_padding(tmp_path: Path) -> None:
    """Images of before Linux 5.3: an encoded stream begins where its cluster begins, with anything behind it."""
    data = text(60_000)
    valid = make_image(tmp_path / "valid", [folder(""), file("text", data)], cluster_size=16384)
    damaged = Damaged(valid, tmp_path / "old")
    with Image.open(valid) as opened:
        extents = [extent for extent in opened.extents(opened.lookup(b"text")) if extent.form == Form.ENCODED]
    assert len(extents) > 2
    for extent in extents:
        stored = bytes(damaged.bytes[extent.position : extent.position + extent.stored])
        stream = stored.lstrip(b"\0")
        damaged.put(extent.position, stream + noise(len(stored) - len(stream)))
    damaged.superblock(feature_incompat=damaged.description().feature_incompat & ~layout.INCOMPAT_LZ4_0PADDING)
    with Image.open(damaged.save()) as opened:
        assert b"".join(opened.chunks(opened.lookup(b"text"))) == data


def test_verify_finds_nothing_in_what_was_written(sample: Path) -> None:
    """With one thread and with two."""
    for threads in (1, 2):
        verified = verify_contents(sample, sample_entries(), threads=threads)
        assert (verified.names, verified.files) == (60, 5)


def test_verify_of_a_file_larger_than_one_task(tmp_path: Path) -> None:
    """It is compared to its last byte."""
    entries = [folder(""), file("noise", noise(9 << 20)), file("text", text(1 << 20) * 17)]
    for compression in ("lz4", "none"):
        image = make_image(tmp_path / compression, entries, compression)
        assert verify_contents(image, entries).data_bytes == (9 + 17) << 20


@pytest.mark.parametrize(
    ("path", "change", "rule"),
    [
        (b"large", {"content": Bytes(text(299_999) + b"!")}, "content-differs"),
        (b"large", {"content": Bytes(text(299_999))}, "content-differs"),
        (b"small", {"content": None}, "content-differs"),
        (b"small", {"mode": 0o100600}, "attribute-differs"),
        (b"small", {"uid": 5}, "attribute-differs"),
        (b"small", {"mtime": 5}, "attribute-differs"),
        (b"small", {"size": 6}, "attribute-differs"),
        (b"link", {"target": b"elsewhere"}, "attribute-differs"),
        (b"device", {"rdev": 99}, "attribute-differs"),
        (b"attributes", {"xattrs": {b"user.one": b"1"}}, "attribute-differs"),
        (b"large-too", {"link": b"small"}, "tree-differs"),
        (b"small", {"path": b"other"}, "tree-differs"),
    ],
)
def test_verify_names_every_difference(sample: Path, path: bytes, change: dict[str, object], rule: str) -> None:
    """Each has its rule, and the path."""
    entries = sample_entries()
    for entry in entries:
        if entry.path == path:
            for name, value in change.items():
                setattr(entry, name, value)
    with pytest.raises(ErofsError) as caught:
        verify_contents(sample, entries)
    assert caught.value.rule == rule
    assert os.fsdecode(path).split("-")[0] in caught.value.message or "other" in caught.value.message


def test_verify_finds_what_nobody_put_in(sample: Path) -> None:
    """A name of the image that the source does not have."""
    with pytest.raises(ErofsError, match="small is in the image"):
        verify_contents(sample, [entry for entry in sample_entries() if entry.path != b"small"])
