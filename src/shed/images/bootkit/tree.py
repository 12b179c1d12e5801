"""A small file tree in memory, from which the initrd and the runtime are written."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from shed.entries import Content, Entry


@dataclass(frozen=True, slots=True)
class Bytes:
    """File content that is held in memory; a `shed.entries.Content`."""

    data: bytes

    def pread(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return self.data[offset : offset + length]


@dataclass(slots=True)
class Tree:
    """Paths (relative, ``a/b``) and what is there.  Folders above an added path come by themselves, mode 0755.

    Everything belongs to root and is dated to the epoch, so that equal content makes equal images.
    """

    _entries: dict[str, Entry] = field(default_factory=dict)

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add an empty folder."""
        self._add(path, Entry(path.encode(), stat.S_IFDIR | mode))

    def file(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """Add a regular file (text as UTF-8)."""
        raw = data.encode() if isinstance(data, str) else data
        self.content(path, Bytes(raw), len(raw), mode)

    def content(self, path: str, content: Content, size: int, mode: int = 0o644) -> None:
        """Add a regular file of `size` bytes that are read only when an image is written."""
        self._add(path, Entry(path.encode(), stat.S_IFREG | mode, size=size, content=content if size else None))

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, Entry(path.encode(), stat.S_IFLNK | 0o777, size=len(target.encode()), target=target.encode()))

    def device(self, path: str, mode: int, rdev: int) -> None:
        """Add a device node; `mode` with its type bits."""
        self._add(path, Entry(path.encode(), mode, rdev=rdev))

    def regular_files(self) -> dict[str, bytes]:
        """Return the content of all regular files, by path."""
        return {path: self.read(path) for path, entry in self._entries.items() if stat.S_ISREG(entry.mode)}

    def read(self, path: str) -> bytes:
        """Return the bytes of a regular file.  Raises `KeyError`."""
        entry = self._entries[path]
        return b"" if entry.content is None else entry.content.pread(entry.size, 0)

    def entries(self) -> Iterator[Entry]:
        """Yield the root and all entries, in the order an EROFS writer wants them."""
        yield Entry(b"", stat.S_IFDIR | 0o755)
        yield from sorted(self._entries.values(), key=lambda entry: entry.path.split(b"/"))

    def _add(self, path: str, entry: Entry) -> None:
        for parent in PurePosixPath(path).parents:
            name = str(parent)
            if name != "." and name not in self._entries:
                self._entries[name] = Entry(name.encode(), stat.S_IFDIR | 0o755)
        self._entries[path] = entry
