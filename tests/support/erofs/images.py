"""Small EROFS images to read, to damage and to judge."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.inode import Inode
from shed.erofs.reader import Image
from shed.erofs.superblock import Superblock, superblock_checksum
from shed.erofs.writer import Compression, WriterOptions, write_image
from support.erofs.trees import file, folder, hardlink, noise, special, symlink, text


def sample_entries() -> list[Entry]:
    """Return a tree with one of everything, sorted."""
    root, inner = folder(""), file("folder/inner", text(9000, 2))
    root.mtime, root.mtime_ns = -5, 7
    inner.uid, inner.gid, inner.mtime, inner.mtime_ns = 1000, 70000, 1_700_000_000, 999_999_999
    return [
        root,
        file("attributes", xattrs={b"user.one": b"1", b"user.two": b"2", b"security.capability": bytes(20)}),
        special("device", stat.S_IFCHR, major=4, minor=64),
        folder("folder"),
        inner,
        file("large", text(300_000)),
        hardlink("large-too", "large"),
        symlink("link", "folder/inner"),
        symlink("loop", "loop"),
        folder("many"),
        *(file(f"many/{number:02}-{'n' * 120}") for number in range(45)),
        file("noise", noise(10_000)),
        special("pipe", stat.S_IFIFO),
        file("small", b"small"),
        symlink("up", "../folder/../link"),
        file("zeros", bytes(200_000)),
    ]


def make_image(path: Path, entries: Iterable[Entry], compression: str = "lz4", **options: Any) -> Path:
    """Write `entries` as the image `path`."""
    with path.open("w+b") as out:
        write_image(entries, out, WriterOptions(compression=Compression.parse(compression), **options))
    return path


class Damaged:
    """A copy of an image whose bytes can be changed; the checksum is made right again when it is saved."""

    def __init__(self, source: Path, target: Path) -> None:
        self.bytes = bytearray(source.read_bytes())
        self._source = source
        self._target = target

    def inode(self, path: str) -> Inode:
        """Return the inode at `path`, as it is in the original."""
        with Image.open(self._source) as image:
            return image.lookup(path.encode())

    def put(self, offset: int, data: bytes) -> None:
        """Change the bytes at `offset`."""
        self.bytes[offset : offset + len(data)] = data

    def put_number(self, offset: int, value: int, size: int) -> None:
        """Change the little-endian number of `size` bytes at `offset`."""
        self.put(offset, value.to_bytes(size, "little"))

    def number(self, offset: int, size: int) -> int:
        """Return the little-endian number of `size` bytes at `offset`."""
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def superblock(self, **fields: Any) -> None:
        """Change fields of the superblock."""
        changed = self.description()._replace(**fields)
        self.put(layout.SUPER_OFFSET, changed.pack())

    def description(self) -> Superblock:
        """Return the superblock as it is now."""
        return Superblock.parse(bytes(self.bytes[: layout.BLOCK_SIZE]), layout.SUPER_OFFSET)

    def save(self, *, sealed: bool = True) -> Path:
        """Write the copy, with a right checksum when `sealed`, and return its path."""
        if sealed:
            self.superblock(checksum=superblock_checksum(bytes(self.bytes[: layout.BLOCK_SIZE])))
        self._target.write_bytes(self.bytes)
        return self._target


def forget_big_clusters(image: Path) -> None:
    """Make `image` one of erofs-utils 1.7.1's broken ones: inodes with clusters larger than a block, and a superblock
    that says none are.

    It mounts, passes fsck.erofs, and a kernel fails with EUCLEAN when such a file is read.
    """
    damaged = Damaged(image, image)
    features = damaged.description().feature_incompat
    assert features & layout.INCOMPAT_BIG_PCLUSTER
    damaged.superblock(feature_incompat=features & ~layout.INCOMPAT_BIG_PCLUSTER, compression=0)
    damaged.save()
