"""Hostile archives stop early: bytes, files, names and memory are counted over all layers while they are read, and
nothing stays behind.

Commit 6aee119 had one limit of bytes and one of memory for each layer: 8 MiB wrote 8 GiB, and a list that is stacked
many times filled the memory.  Its limits have other names, so this file cannot be imported there.
"""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from shed.budget import Reserve
from shed.errors import DataError, StorageError
from shed.images.load import load_images
from shed.images.mint import mint_archive
from shed.images.verify import verify_image
from shed.oci import unpack_limits
from shed.oci.archive import open_archive
from shed.oci.content import FileSlice
from shed.oci.decompression import Spool
from shed.oci.flatten import flatten
from shed.oci.selection import select_named
from shed.oci.store import LayoutStore
from shed.oci.tarstream import read_tar
from shed.oci.unpack_limits import Unpacking
from support.images.minted import small_kit
from support.layers.tars import Image, file, flat, folder, members, source, symlink, tar

MIB = 1 << 20
BOMB = tar(file("bomb", (b"not zeros " * 103)[:1024] * 32 * 1024))
"""32 MiB that compress to less than 200 KiB."""


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the ratio from 8 MiB on, so that bombs are small."""
    monkeypatch.setattr(unpack_limits, "RATIO_FROM", 8 * MIB)


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store with a boot kit."""
    store = LayoutStore(tmp_path / "images")
    small_kit(store)
    return store


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many bytes each write to an unpacked layer has."""
    counts: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        counts.append(len(data))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return counts


@contextmanager
def memory(most: int) -> Iterator[None]:
    """Fail when the block allocates `most` bytes or more at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def left(store: LayoutStore) -> list[str]:
    """Return the files in the store but for the kit's blobs and the locks."""
    return sorted(path.name for path in store.blobs.iterdir() if path.suffix != ".lock" and len(path.name) != 64)


def mint(store: LayoutStore, path: Path) -> None:
    """Make an image of an archive."""
    mint_archive(store, path, "hostile", kit=small_kit(store))


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_bomb_stops_at_its_ratio(
    store: LayoutStore, tmp_path: Path, written: list[int], compress: Callable[[bytes], bytes]
) -> None:
    """Not at the most that any image may have: little was written, and none of it stays; the error says what came of
    what, and where.
    """
    image = Image(tar(file("small")), BOMB)
    image.manifest["layers"][1] = image.blob(compress(BOMB), "application/vnd.oci.image.layer.v1.tar+gzip")
    before = store.blob_digests()
    with pytest.raises(
        DataError, match=r"layer 2: \S+ KiB unpack to \S+ MiB and more, over 100 times as much"
    ) as caught:
        mint(store, image.archive(tmp_path / "bomb.tar"))
    assert caught.value.code == "IMAGE_TOO_LARGE"
    assert "docker-archive" in (caught.value.hint or "")
    assert sum(written) <= 16 * MIB
    assert (left(store), store.blob_digests(), store.tag_names()) == ([], before, [])


@pytest.mark.usefixtures("low")
def test_zeros_are_no_bomb(store: LayoutStore, tmp_path: Path) -> None:
    """A layer of zeros, as a disk image in a layer is, has any ratio and takes no space."""
    image = Image(tar(file("disk", bytes(64 * MIB))))
    assert len(image.archive(tmp_path / "zeros.tar").read_bytes()) * 100 < 64 * MIB
    mint(store, tmp_path / "zeros.tar")
    assert "contents" in {
        check.name for check in verify_image(store, "hostile", deep=True).checks if check.status == "PASS"
    }


@pytest.mark.usefixtures("low")
def test_what_is_not_compressed_has_no_ratio(store: LayoutStore, tmp_path: Path) -> None:
    """The way for who has such an image and means it."""
    mint(store, Image(BOMB, compress=False).archive(tmp_path / "plain.tar"))
    assert store.tag_names() == ["hostile"]


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("use", [mint, load_images])
def test_a_bomb_around_the_archive(
    store: LayoutStore, tmp_path: Path, written: list[int], use: Callable[[LayoutStore, Path], object]
) -> None:
    """A compressed archive is unpacked before anything of it is known."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(BOMB))
    with pytest.raises(DataError, match=r"bomb\.tar\.gz: .* over 100 times as much"):
        use(store, path)
    assert sum(written) <= 16 * MIB
    assert left(store) == []


def test_the_reserve_stays_free(store: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is written only as long as enough stays free; holes take nothing."""
    path = Image(BOMB).archive(tmp_path / "image.tar")
    monkeypatch.setattr(LayoutStore, "scratch", lambda self: self.blobs)
    checks: list[int] = []

    def check(self: Reserve, coming: int = 0) -> None:
        checks.append(coming)
        if sum(checks) > 4 * MIB:
            raise StorageError("too little space", code="DISK_RESERVE")

    monkeypatch.setattr(Reserve, "check", check)
    with pytest.raises(StorageError, match="too little space"):
        mint(store, path)
    assert left(store) == []
    checks.clear()
    with Spool(tmp_path, Unpacking(Reserve(tmp_path)).part("layer 1")) as spool:
        for _ in range(16):
            spool.write(bytes(MIB))
    assert checks == []


def test_files_are_counted_over_all_layers(store: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer alone is within the limit; the one that exceeds it is named."""
    monkeypatch.setattr(Unpacking.__init__, "__kwdefaults__", Unpacking.__init__.__kwdefaults__ | {"members": 100})  # type: ignore[operator]
    layers = [tar(*(file(f"{layer}-{number}") for number in range(40))) for layer in range(3)]
    with pytest.raises(DataError, match=r"layer \d: the image has more than 100 files, all layers together"):
        mint(store, Image(*layers).archive(tmp_path / "many.tar"))
    assert (left(store), store.tag_names()) == ([], [])


@pytest.mark.slow
def test_a_layer_that_is_stacked_many_times_is_read_once(store: LayoutStore, tmp_path: Path) -> None:
    """Its list is in memory once, and its bytes on the disk; on 6aee119 as often as it is stacked, which took 60 MiB
    here.
    """
    layer = tar(*(file(f"{number:05}") for number in range(2000)))
    image = Image(*[layer] * 64)
    with memory(24 * MIB):
        mint(store, image.archive(tmp_path / "stacked.tar"))
        assert "contents" in {
            check.name for check in verify_image(store, "hostile", deep=True).checks if check.status == "PASS"
        }


def test_a_stacked_layer_counts_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging a list costs time whenever it is merged."""
    monkeypatch.setattr("shed.oci.flatten.MAX_FILES", 100)
    layer = members(tar(*(file(f"{number}") for number in range(40))))
    with pytest.raises(DataError, match="layer 3: the image has more than 100 files"):
        list(flatten([layer] * 30))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_headers_without_end(kind: bytes) -> None:
    """A hundred extended headers before one file, or megabytes of them, are refused before they are kept; 6aee119 took
    any number.
    """
    record = b"2000 SCHILY.xattr.user.%03d=" if kind == b"x" else b""
    headers = b""
    for number in range(100):
        data = (record % number if record else b"").ljust(1999, b"v") + b"\n"
        block = bytearray(tar(file("name", data))[:512])
        block[156:157] = kind
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        headers += bytes(block) + data.ljust(2048, b"\0")
    with pytest.raises(DataError, match="65 extended headers"):
        members(headers + tar(file("a")))


def test_xattrs_are_counted_before_all_are_kept() -> None:
    """What a file carries counts as memory."""
    many = tar(
        *(
            file(f"{number}", pax_headers={f"SCHILY.xattr.user.{n}": "v" * 500 for n in range(100)})
            for number in range(200)
        )
    )
    counts = Unpacking(memory=2 * MIB).part("layer 7")
    with (
        memory(8 * MIB),
        pytest.raises(
            DataError, match=r"layer 7: the names and attributes of \d\d files take more than 2 MiB of memory"
        ),
    ):
        list(read_tar(source(many), counts))


def test_a_sparse_map_that_is_one_long_line() -> None:
    """It is given up after a number's length; 6aee119 searched all of it again for each block: hours for 32 MiB."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    reads: list[int] = []

    class Counting(FileSlice):
        def pread(self, length: int, offset: int) -> bytes:
            reads.append(length)
            return super().pread(length, offset)

    whole = source(tar(file("map", b"1" * 8 * MIB, pax_headers=headers)))
    with pytest.raises(DataError, match="broken sparse map"):
        list(read_tar(Counting(whole.fd, 0, whole.size), Unpacking().part("layer 1")))
    assert len(reads) < 10


def test_names_of_many_components_take_no_more_memory_than_they_have_bytes() -> None:
    """Split, such a name takes 17 times as much; 6aee119 kept all of them split."""
    deep = "/".join(["ab"] * 1300)
    layer = members(tar(folder(deep), *(file(f"{deep}/{number:04}") for number in range(400))))
    with memory(6 * MIB):
        found = sum(1 for _ in flatten([layer]))
    assert found == 1 + 1300 + 400


@pytest.mark.slow
def test_what_a_deep_whiteout_hides_is_noted_once() -> None:
    """A folder that is reached through a link, so with short names, may lie deep; 6aee119 noted a path of 1,300 parts
    for each file.
    """
    deep = "/".join(["ab"] * 1300)
    lower = [folder(deep), symlink("in", deep), *(file(f"in/{number:04}") for number in range(600))]
    layers = [members(tar(*lower)), members(tar(file(f"{deep}/.wh..wh..opq")))]
    with memory(3 * MIB):
        assert sum(1 for _ in flatten(layers)) == 1 + 1300 + 1


@pytest.mark.slow
def test_paths_come_to_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short names in a deep folder make long paths: they are counted before they are made."""
    monkeypatch.setattr("shed.oci.flatten.MAX_PATHS", MIB)
    deep = "/".join(["ab"] * 1300)
    layer = members(tar(folder(deep), symlink("in", deep), *(file(f"in/{number:04}") for number in range(600))))
    with memory(5 * MIB), pytest.raises(DataError, match="the paths of the image have more than 1 MiB"):
        list(flatten([layer]))


def test_links_to_follow_come_to_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link may have 2,000 components, lead to another, and be used by each file: hours of work, in a few
    megabytes.
    """
    monkeypatch.setattr("shed.oci.flatten.MAX_STEPS", 1_000_000)
    long = "a/../" * 800
    links = [symlink(f"l{number}", f"{long}l{number + 1}") for number in range(30)]
    with pytest.raises(DataError, match="layer 1: its paths and symlinks have more than 1,000,000 components to walk"):
        flat([folder("a"), folder("l30"), *links, *(file(f"l0/{number}") for number in range(100))])


def test_an_image_with_thousands_of_names_is_read_once(tmp_path: Path) -> None:
    """An index may list one manifest 4,096 times; 6aee119 kept as many copies of it."""
    image = Image(tar(file("a")))
    image.config["config"]["Labels"] = {"large": "x" * MIB}
    entry = image.seal()
    image.index["manifests"] = [
        entry | {"annotations": {"org.opencontainers.image.ref.name": f"n{number}"}} for number in range(4096)
    ]
    path = image.archive(tmp_path / "names.tar")
    with open_archive(path, scratch=tmp_path) as archive, memory(64 * MIB):
        assert len(select_named(archive)) == 4096


def test_documents_come_to_so_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests and configs of an archive are in memory together, so they count together."""
    monkeypatch.setattr("shed.oci.selection.MAX_DOCUMENTS", 4 * MIB)
    image = Image(tar(file("a")))
    for number in range(6):
        image.config["config"]["Labels"] = {"large": str(number) * MIB}
        image.seal(annotations={"org.opencontainers.image.ref.name": f"n{number}"})
    with open_archive(image.archive(tmp_path / "documents.tar"), scratch=tmp_path) as archive:
        with pytest.raises(DataError, match="its manifests and configs have more than 4 MiB"):
            select_named(archive)


def test_an_archive_of_very_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image has one for each layer: a hundred thousand are somebody's attack on our memory."""
    monkeypatch.setattr("shed.oci.archive.MAX_FILES", 50)
    path = Image(tar(file("a"))).archive(tmp_path / "many.tar", *(file(f"f{number}") for number in range(60)))
    with (
        pytest.raises(DataError, match=r"many\.tar: the image has more than 50 files"),
        open_archive(path, scratch=tmp_path),
    ):
        pass
