"""Verifying an image against the tree that it was made from: every name, every attribute, every byte.

Whether the structure of the image is sound is the checker's part.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.errors import ErofsError, shown
from shed.erofs.extents import Extent, Form
from shed.erofs.inode import Inode
from shed.erofs.reader import Image

_BATCH = 8 << 20
"""Bytes that one task compares: many small files are one task, and a large file is divided among several."""


@dataclass(frozen=True, slots=True)
class Verified:
    """How much was compared and found equal: names, regular files with data, and their bytes."""

    names: int
    files: int
    data_bytes: int


def verify_contents(path: Path, expected: Iterable[Entry], *, threads: int | None = None) -> Verified:
    """Read the image `path` with the reader, and compare it with the entries that the writer was given.

    `expected` are these entries, in the same order.  Contents are read again through `Entry.content`, by `threads`
    threads (default: as many as there are processors).  Raises `ErofsError` with the path and what differs; the rule
    is ``content-differs``, ``attribute-differs`` or ``tree-differs``, or one of `shed.erofs.checker`.
    """
    with Image.open(path) as image:
        names, files = _compare_tree(image, expected)
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            tasks = [pool.submit(_compare_windows, image, windows) for windows in _tasks(files)]
            try:
                total = sum(task.result() for task in tasks)
            finally:
                for task in tasks:
                    task.cancel()
    return Verified(names, len(files), total)


def _compare_tree(image: Image, expected: Iterable[Entry]) -> tuple[int, list[tuple[Entry, Inode]]]:
    """Compare names and attributes; return the number of names, and the regular files with data."""
    found = image.walk()
    path: bytes | None
    path, inode = next(found)
    count = 1
    files = []
    links: list[tuple[Entry, int]] = []
    nids: dict[bytes, int] = {}
    """Inode numbers of files with several names."""
    for number, entry in enumerate(expected):
        if number or entry.path:  # when no root is given, the writer adds one
            path, inode = next(found, (None, inode))
            count += 1
        if path != entry.path:
            missing = path is None or entry.path.split(b"/") < path.split(b"/")
            raise _differs("tree", entry.path, "is not in the image") if missing else _not_put_in(path or b"")
        if inode.nlink > 1 and not stat.S_ISDIR(inode.mode):
            nids[entry.path] = inode.nid
        if entry.link is not None:
            links.append((entry, inode.nid))
            continue
        _compare_attributes(image, entry, inode)
        if stat.S_ISREG(entry.mode) and entry.size:
            files.append((entry, inode))
    for extra, _ in found:
        raise _not_put_in(extra)
    for entry, nid in links:
        if nids.get(entry.link or b"") != nid:
            raise _differs("tree", entry.path, f"is not the same inode as {shown(entry.link or b'')}")
    return count, files


def _not_put_in(path: bytes) -> ErofsError:
    return _differs("tree", path, "is in the image, but was not put in")


def _compare_attributes(image: Image, entry: Entry, inode: Inode) -> None:
    wanted: dict[str, object] = {
        "mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "mtime": entry.mtime, "mtime_ns": entry.mtime_ns,
        "xattrs": dict(entry.xattrs),
    }  # fmt: skip
    actual: dict[str, object] = {
        "mode": inode.mode, "uid": inode.uid, "gid": inode.gid, "mtime": inode.mtime, "mtime_ns": inode.mtime_ns,
        "xattrs": image.xattrs(inode) if inode.xattr_icount else {},
    }  # fmt: skip
    if stat.S_ISREG(entry.mode):
        wanted["size"], actual["size"] = entry.size, inode.size
    elif stat.S_ISLNK(entry.mode) and stat.S_ISLNK(inode.mode):
        wanted["target"], actual["target"] = entry.target, image.readlink(inode)
    elif inode.device is not None:
        wanted["device"], actual["device"] = (os.major(entry.rdev), os.minor(entry.rdev)), inode.device
    for name, value in wanted.items():
        if actual[name] != value:
            raise _differs("attribute", entry.path, f"has {name} {actual[name]!r} instead of {value!r}")


class _Window(NamedTuple):
    """A part of a file: the extents that begin in it, and all uncompressed bytes and holes that are inside it."""

    entry: Entry
    inode: Inode
    start: int
    end: int


def _tasks(files: Iterable[tuple[Entry, Inode]]) -> Iterator[list[_Window]]:
    """Yield what each task compares: many small files, or a window of a large file."""
    batch: list[_Window] = []
    room = _BATCH
    for entry, inode in files:
        if inode.size > _BATCH:
            for start in range(0, inode.size, _BATCH):
                yield [_Window(entry, inode, start, min(start + _BATCH, inode.size))]
            continue
        batch.append(_Window(entry, inode, 0, inode.size))
        room -= inode.size
        if room <= 0:
            yield batch
            batch, room = [], _BATCH
    if batch:
        yield batch


def _compare_windows(image: Image, windows: Iterable[_Window]) -> int:
    """Compare every extent of `windows` with what went in; return the bytes compared."""
    return sum(_compare_extent(image, window, extent) for window in windows for extent in _within(image, window))


def _within(image: Image, window: _Window) -> Iterator[Extent]:
    for extent in image.extents(window.inode, window.start):
        if extent.start >= window.end:
            return
        if extent.start >= window.start or extent.form in (Form.HOLE, Form.VERBATIM):
            yield extent


def _compare_extent(image: Image, window: _Window, extent: Extent) -> int:
    entry, inode = window.entry, window.inode
    start, end = extent.start, extent.start + extent.length
    if extent.form in (Form.HOLE, Form.VERBATIM):
        start, end = max(start, window.start), min(end, window.end)
    for position in range(start, end, layout.PCLUSTER_MAX_DSIZE):
        length = min(layout.PCLUSTER_MAX_DSIZE, end - position)
        if image.part(inode, extent, position - extent.start, position - extent.start + length) != _original(
            entry, length, position
        ):
            raise _differs(
                "content", entry.path, f"differs from what went in, between bytes {position} and {position + length}"
            )
    return end - start


def _original(entry: Entry, length: int, position: int) -> bytes:
    """Return `length` bytes of the source, or fewer if it ends before."""
    if entry.content is None:
        return b""
    data = entry.content.pread(length, position)
    while len(data) < length:
        more = entry.content.pread(length - len(data), position + len(data))
        if not more:
            break
        data += more
    return data


def _differs(kind: str, path: bytes, how: str) -> ErofsError:
    return ErofsError(
        f"{shown(path)} {how}", rule=f"{kind}-differs", hint="the image is not used; report this as a bug"
    )
