"""Small EROFS images to read, to damage and to judge."""

from __future__ import annotations

import dataclasses
import functools
import random
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.inode import Inode
from shed.erofs.reader import Image
from shed.erofs.writer import Compression, WriterOptions, write_image


class Bytes:
    """Content that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def pread(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return self._data[offset : offset + length]


def file(path: str, data: bytes, **attributes: Any) -> Entry:
    """Return the entry of a regular file."""
    return Entry(path.encode(), stat.S_IFREG | 0o644, size=len(data), content=Bytes(data) if data else None, **attributes)


def folder(path: str, **attributes: Any) -> Entry:
    """Return the entry of a folder."""
    return Entry(path.encode(), stat.S_IFDIR | 0o755, **attributes)


def symlink(path: str, target: str) -> Entry:
    """Return the entry of a symlink."""
    return Entry(path.encode(), stat.S_IFLNK | 0o777, target=target.encode())


@functools.cache
def text(size: int, seed: int = 1) -> bytes:
    """Return `size` bytes that compress about as program text does."""
    words = [random.Random(seed + number).randbytes(random.Random(number).randint(1, 9)) for number in range(300)]
    source = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        out += source.choice(words)
    return bytes(out[:size])


@functools.cache
def noise(size: int, seed: int = 1) -> bytes:
    """Return `size` bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def sample_entries() -> list[Entry]:
    """Return a tree with one of everything, sorted."""
    many = [file(f"many/{number:03}-{'n' * 40}", b"") for number in range(150)]
    entries = [
        folder("", mtime=-5, mtime_ns=7),
        file("attributes", b"", xattrs={b"user.one": b"1", b"user.two": b"2", b"security.capability": bytes(20)}),
        Entry(b"device", stat.S_IFCHR | 0o600, rdev=(4 << 8) | 64),
        folder("folder"),
        file("folder/inner", text(9000, 2), uid=1000, gid=70000, mtime=1700000000, mtime_ns=999999999),
        file("large", text(300_000)),
        Entry(b"large-too", 0, link=b"large"),
        symlink("link", "folder/inner"),
        symlink("loop", "loop"),
        folder("many"),
        *many,
        file("noise", noise(10_000)),
        Entry(b"pipe", stat.S_IFIFO | 0o644),
        file("small", b"small"),
        symlink("up", "../folder/../link"),
        file("zeros", bytes(200_000)),
    ]
    return sorted(entries, key=lambda entry: entry.path.split(b"/") if entry.path else [])


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
        changed = dataclasses.replace(self.description(), **fields)
        self.put(layout.SUPER_OFFSET, changed.pack())

    def description(self) -> layout.Superblock:
        """Return the superblock as it is now."""
        return layout.Superblock.parse(bytes(self.bytes[: layout.BLOCK_SIZE]), layout.SUPER_OFFSET)

    def save(self, *, sealed: bool = True) -> Path:
        """Write the copy, with a right checksum when `sealed`, and return its path."""
        if sealed:
            self.superblock(checksum=layout.superblock_checksum(bytes(self.bytes[: layout.BLOCK_SIZE])))
        self._target.write_bytes(self.bytes)
        return self._target
