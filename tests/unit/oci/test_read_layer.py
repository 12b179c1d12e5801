"""One layer on its way in: every compression, every lie about it, and bombs."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from shed.budget import Budget
from shed.errors import DataError
from shed.oci import media
from shed.oci.content import FileSlice
from shed.oci.decompression import Spool
from shed.oci.descriptor import Descriptor
from shed.oci.digest import digest_bytes
from shed.oci.layers import read_layer
from shed.oci.store import LayoutStore
from shed.oci.tarstream import Member
from shed.oci.unpack_limits import Unpacking
from support.layers.tars import file, source, tar

DATA = os.urandom(3_000_000) + bytes(2_000_000)
LAYER = tar(file("a", DATA), file("b", b"small"))
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"


def long_zstd(data: bytes, log: int) -> bytes:
    """Return `data` as a stream of which nobody knew the size, with a window of 1 << `log` bytes, as `zstd --long`."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


PACKED: dict[str, bytes] = {
    "plain": LAYER,
    "gzip": gzip.compress(LAYER, 1),
    "gzip in two members": gzip.compress(LAYER[:100_000]) + gzip.compress(LAYER[100_000:], 1),
    "gzip with padding": gzip.compress(LAYER, 1) + bytes(512),
    "zstd": zstandard.compress(LAYER),
    "zstd in two frames": zstandard.compress(LAYER[:100_000]) + zstandard.compress(LAYER[100_000:]),
    "zstd --long=28": long_zstd(LAYER, 28),
    "zstd --long=29": long_zstd(LAYER, 29),
    "zstd:chunked": SKIPPABLE + zstandard.compress(LAYER) + SKIPPABLE,
}


def read(
    tmp_path: Path, packed: bytes, *, digest: bytes | None = None, diff: bytes = LAYER, budget: int = 1 << 30,
    check: Callable[[list[Member]], None] = lambda members: None,
) -> LayoutStore:  # fmt: skip
    """Read a layer into a new store and commit it; `check` sees the members while their contents are there."""
    store = LayoutStore(tmp_path / "images")
    descriptor = Descriptor(media.LAYER_GZIP, digest_bytes(packed if digest is None else digest), len(packed))
    part = Unpacking(bytes_=budget).part("layer 1")
    with store.stage() as blob, Spool(store.scratch(), part) as spool:
        check(read_layer(source(packed), descriptor, digest_bytes(diff), blob=blob, spool=spool, part=part))
        blob.commit()
    return store


def whole(members: list[Member]) -> None:
    """Compare the members with what `LAYER` was made of."""
    first, second = members
    assert isinstance(first.content, FileSlice)
    assert first.content.pread(first.size, 0) == DATA
    assert second.content is not None
    assert second.content.pread(100, 0) == b"small"


@pytest.mark.parametrize("name", PACKED)
def test_every_compression(tmp_path: Path, name: str) -> None:
    """The blob is kept byte for byte and its members can be read."""
    store = read(tmp_path, PACKED[name], check=whole)
    (digest,) = store.blob_digests()
    assert store.blob_path(digest).read_bytes() == PACKED[name]


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        (bz2.compress(LAYER[:1000]), "layer 1: bzip2 compression is not supported"),
        (lzma.compress(LAYER[:1000]), "layer 1: xz compression is not supported"),
        (PACKED["gzip"][:-100], "layer 1 is damaged"),
        (PACKED["gzip"] + b"junk", "layer 1 is damaged"),
        (PACKED["gzip"][:-8] + b"12345678", "layer 1 is damaged"),
        (PACKED["zstd"][:-100], "layer 1, unpacked: digest mismatch"),
        (PACKED["zstd"] + b"junk", "layer 1 is damaged"),
        (b"", "layer 1, unpacked: digest mismatch"),
    ],
    ids=["bzip2", "xz", "cut gzip", "gzip and more", "gzip checksum", "cut zstd", "zstd and more", "empty"],
)
def test_damaged_layers(tmp_path: Path, packed: bytes, problem: str) -> None:
    """Nothing that does not unpack to what its diffID says is taken."""
    with pytest.raises(DataError, match=problem):
        read(tmp_path, packed)
    assert LayoutStore(tmp_path / "images").blob_digests() == []


@pytest.mark.parametrize("name", ["plain", "gzip", "zstd"])
def test_lies_about_digests(tmp_path: Path, name: str) -> None:
    """A blob that is not what the manifest names, and a layer that is not what the config names."""
    with pytest.raises(DataError, match="layer 1, blob: digest mismatch"):
        read(tmp_path, PACKED[name], digest=b"other")
    with pytest.raises(DataError, match="layer 1, unpacked: digest mismatch"):
        read(tmp_path, PACKED[name], diff=b"other")


def test_altered_blob_is_named_before_the_decompressor_complains(tmp_path: Path) -> None:
    """A flipped bit is a wrong digest first."""
    good = PACKED["gzip"]
    altered = good[:1000] + bytes([good[1000] ^ 1]) + good[1001:]
    with pytest.raises(DataError, match="layer 1, blob: digest mismatch"):
        read(tmp_path, altered, digest=good)


def test_layer_that_is_no_archive(tmp_path: Path) -> None:
    """Right digests do not make a tar file of something else."""
    junk = b"not a tar archive" * 100
    with pytest.raises(DataError, match=r"layer 1: bad .* tar header"):
        read(tmp_path, gzip.compress(junk), diff=junk)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_bomb(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """A small layer that unpacks to more than the image may have is stopped there."""
    bomb = bytes(64 << 20)
    with pytest.raises(DataError, match="unpacks to more than"):
        read(tmp_path, compress(bomb), diff=bomb, budget=16 << 20)


def test_budget_is_shared() -> None:
    """Two layers cannot each take all of it."""
    budget = Budget(10)
    budget.spend(6)
    with pytest.raises(DataError):
        budget.spend(6)


def test_zeros_take_no_space(tmp_path: Path) -> None:
    """A megabyte of zeros is a hole in the spool and still hashed and read."""
    with Spool(tmp_path, Budget(1 << 40)) as spool:
        for data in (bytes(1 << 20), b"x" * (1 << 20), bytes(1 << 20)):
            spool.write(data)
        found = spool.finish()
        assert found.size == 3 << 20
        assert found.pread(1 << 21, 1 << 20) == b"x" * (1 << 20) + bytes(1 << 20)
        assert spool.digest() == digest_bytes(bytes(1 << 20) + b"x" * (1 << 20) + bytes(1 << 20))
        assert os.fstat(found.fd).st_blocks * 512 < 2 << 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("log", [30, 31])
def test_windows_that_are_too_large(tmp_path: Path, log: int) -> None:
    """The layer is not called damaged: it needs more memory than it gets, and the hint says how to pack it."""
    with pytest.raises(DataError, match=rf"layer 1: zstd needs {1 << log - 30} GiB of memory to unpack it") as caught:
        read(tmp_path, long_zstd(LAYER, log))
    assert "--long=29" in str(caught.value.hint)


def test_a_large_window_behind_the_first_frame(tmp_path: Path) -> None:
    """It is not hidden there: only a first frame gets more than the usual memory, one at a time."""
    with pytest.raises(DataError, match="layer 1 needs too much memory to unpack"):
        read(tmp_path, zstandard.compress(LAYER[:100_000]) + long_zstd(LAYER[100_000:], 29))
