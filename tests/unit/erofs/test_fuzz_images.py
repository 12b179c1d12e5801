"""Whatever bytes an image has, reader and checker end with an `ErofsError` or a result: soon, and in little memory.

Valid images of our writer and of mkfs.erofs are changed at places that matter.  `SHED_FUZZ_SECONDS` asks for a longer,
random run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shed.erofs import layout
from shed.erofs.checker import check
from shed.erofs.errors import ErofsError
from shed.erofs.reader import Image
from shed.erofs.superblock import Superblock, superblock_checksum
from shed.errors import NotFoundError
from support.erofs.images import make_image, sample_entries
from support.erofs.utils import mkfs_erofs
from support.fuzz import SECONDS, repeat

log = logging.getLogger(__name__)
EXAMPLES = 120
"""Images of each kind in a run; a longer one is several such runs."""
SLOWEST = 5.0
"""Seconds of a processor that one small image may take."""
READ_LIMIT = 1 << 20
MEMORY = 512 << 20
"""Bytes that may be allocated beyond what the process has."""
MKFS = {
    "compact": ["-zlz4", "-C16384"],
    "legacy": ["-zlz4", "-Elegacy-compress"],
    "tails": ["-zzstd", "-Eztailpacking", "-C65536"],
    "fragments": ["-zlz4", "-Efragments,dedupe", "-C16384", "--xattr-prefix=user.long."],
    "chunks": ["--chunksize=4096", "-x1"],
    "directories": ["-zlz4", "--zD=1"],
}
WRITTEN = ("lz4", "zstd", "none")


class Seed:
    """A valid image and the bytes of it that matter most."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        self.places: list[tuple[int, int]] = [(layout.SUPER_OFFSET, layout.SUPER_OFFSET + 160)]
        with Image.open(path) as image:
            for _, inode in image.walk():
                self.places.append((inode.offset, inode.offset + 64))
                self.places.append((inode.body, min(inode.body + 200, len(self.data))))
                for extent in image.extents(inode) if inode.kind == "directory" else ():
                    if extent.position:
                        self.places.append((extent.position, extent.position + min(extent.stored, 400)))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seed]:
    folder = tmp_path_factory.mktemp("seeds")
    source = folder / "source"
    source.mkdir()
    with Image.open(make_image(folder / "image", sample_entries())) as image:
        for path, inode in image.walk():
            target = source / os.fsdecode(path)
            if inode.kind == "directory":
                target.mkdir(exist_ok=True)
            elif inode.kind == "symlink":
                target.symlink_to(os.fsdecode(image.readlink(inode)))
            elif inode.kind == "file":
                target.write_bytes(b"".join(image.chunks(inode)))
    os.setxattr(source / "small", "user.long.name", b"value")
    os.setxattr(source / "noise", "user.long.name", b"value")
    made = {name: Seed(make_image(folder / f"written-{name}", sample_entries(), name)) for name in WRITTEN}
    for name, options in MKFS.items():
        mkfs_erofs(folder / name, source, "--quiet", "-T1", *options)
        made[name] = Seed(folder / name)
    return made


Mutation = tuple[str, int, int, int]
mutations = st.lists(
    st.tuples(
        st.sampled_from(["flip", "number", "number", "copy", "zero", "anywhere", "cut"]),
        st.integers(0, 1 << 16),
        st.integers(0, 1 << 16),
        st.one_of(
            st.sampled_from(
                [0, 1, 2, 3, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, 1 << 63, (1 << 64) - 1]
            ),
            st.integers(0, 300),
            st.integers(0, (1 << 64) - 1),
        ),
    ),
    min_size=1,
    max_size=6,
)


def mutate(seed: Seed, changes: list[Mutation], *, sealed: bool) -> bytes:
    data = bytearray(seed.data)
    for kind, place, offset, value in changes:
        start, end = seed.places[place % len(seed.places)]
        at = min(start + offset % max(end - start, 1), len(data) - 8)
        if kind == "flip":
            data[at] ^= 1 << value % 8
        elif kind == "number":
            size = (1, 2, 4, 8)[offset % 4]
            data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif kind == "copy":
            other = seed.places[value % len(seed.places)][0]
            piece = data[other : other + offset % 64]
            data[at : at + len(piece)] = piece
        elif kind == "zero":
            length = value % 64
            data[at : at + length] = bytes(length)
        elif kind == "anywhere":
            data[(place << 16 | offset) % len(data)] = value & 0xFF
        elif kind == "cut" and place % 8 == 0:
            del data[max((offset * len(data)) >> 16, layout.BLOCK_SIZE) :]
    del data[len(seed.data) :]
    if sealed and len(data) >= layout.BLOCK_SIZE:
        checksum = superblock_checksum(bytes(data[: layout.BLOCK_SIZE]))
        data[layout.SUPER_OFFSET + 4 : layout.SUPER_OFFSET + 8] = checksum.to_bytes(4, "little")
    return bytes(data)


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Let allocations fail that are `size` bytes beyond what the process has now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def use(path: Path) -> None:
    """Do with the image all that can be done, and let nothing but the promised errors out."""
    with contextlib.suppress(ErofsError):
        check(path, data=True)
    with contextlib.suppress(ErofsError), Image.open(path) as image:
        with contextlib.suppress(NotFoundError, ErofsError):
            image.lookup(b"up", follow=True)
        for number, (_, inode) in enumerate(image.walk()):
            if number > 1000:
                break
            with contextlib.suppress(ErofsError):
                image.xattrs(inode)
            with contextlib.suppress(ErofsError):
                image.readlink(inode)
            for offset in (0, inode.size // 2, max(inode.size - 10, 0)):
                with contextlib.suppress(ErofsError):
                    assert len(image.read(inode, offset, READ_LIMIT)) <= READ_LIMIT


@pytest.mark.parametrize("name", [*WRITTEN, *MKFS])
def test_mutated_images(name: str, seeds: dict[str, Seed], tmp_path: Path) -> None:
    """Checker and reader end in a result or an `ErofsError`, soon and within the memory allowed."""
    seed = seeds[name]
    path = tmp_path / "image"
    started = time.monotonic()
    count = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not SECONDS,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations, st.booleans())
    def run(changes: list[Mutation], sealed: bool) -> None:
        nonlocal count
        count += 1
        path.write_bytes(mutate(seed, changes, sealed=sealed))
        begin = time.process_time()
        use(path)
        assert time.process_time() - begin < SLOWEST

    with memory_limit(MEMORY):
        repeat(run)
    log.info("%s: %d images in %.0f s", name, count, time.monotonic() - started)
    assert count >= 100


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=9000))
def test_any_bytes_at_all(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """They are never an image, and never anything but an `ErofsError`."""
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    path.write_bytes(data)
    with pytest.raises(ErofsError):
        check(path)
    path.write_bytes(
        bytes(layout.SUPER_OFFSET) + Superblock(blocks=2).pack() + data.ljust(2 * layout.BLOCK_SIZE, b"\0")
    )
    with contextlib.suppress(ErofsError):
        check(path, data=True)
