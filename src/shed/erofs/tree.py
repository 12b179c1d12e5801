"""The tree to be written: from a stream of entries to inodes, and from a directory on disk to a stream of entries.

Mistakes in a tree are found here, before anything is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shed.entries import MAX_PATH, Entry
from shed.erofs import layout
from shed.erofs.clusters import FileData
from shed.erofs.errors import ErofsError, shown
from shed.erofs.xattrs import pack_xattrs

_ID_MAX = 0xFFFFFFFF
_TIME_LIMIT = 1 << 63
_SIZE_LIMIT = 1 << 63
_MAJOR_MAX, _MINOR_MAX = 0xFFF, 0xFFFFF


@dataclass(slots=True, eq=False)
class Node:
    """One inode to be written."""

    entry: Entry
    parent: Node | None
    """The directory that contains it; None for the root."""
    xattrs: bytes
    nlink: int = 1
    children: list[tuple[bytes, Node]] = field(default_factory=list)
    """Names and inodes in a directory, sorted, without "." and ".."."""
    data: FileData | None = None
    """Where a regular file's bytes are, once they are written."""
    block: int = 0
    """First block of the data of a directory or symlink that is not inline."""
    nid: int = 0

    @property
    def type(self) -> int:
        """The type bits of the mode."""
        return stat.S_IFMT(self.entry.mode)


def build_tree(entries: Iterable[Entry]) -> list[Node]:
    """Return the inodes of the tree: the root first, each directory before what it contains.

    When `entries` has no root, a plain one is added.

    Raises `ErofsError` (rules ``unsorted``, ``duplicate``, ``missing-parent``, ``bad-name``, ``bad-entry``,
    ``missing-target``, ``xattr-name``, ``xattr-too-large``) for a stream that breaks the contract of `Entry`, or that
    EROFS cannot store.
    """
    nodes: list[Node] = []
    links: list[tuple[Entry, Node, int]] = []
    stack: list[tuple[bytes, Node]] = []  # the directories from the root to here, with their paths
    last: bytes | None = None
    for entry in _with_root(entries):
        path = entry.path
        if last is None:
            name = b""
        else:
            folder, _, name = path.rpartition(b"/")
            while stack and stack[-1][0] != folder:
                stack.pop()
            siblings = stack[-1][1].children if stack else ()
            # An entry is in order when its directory is one of those on the stack, and its name comes after the last
            # name in that directory.
            if not path or not stack or (siblings and name <= siblings[-1][0]):
                raise _order_error(path, last)
            if len(path) > MAX_PATH:
                raise ErofsError(f"{shown(path[:200])}... has more than {MAX_PATH} bytes", rule="bad-name")
            if not name or len(name) > layout.NAME_MAX or name in {b".", b".."} or b"\0" in name:
                raise ErofsError(
                    f"{shown(path)} is not a path EROFS can hold: a name has 1 to 255 bytes", rule="bad-name"
                )
        last = path
        parent = stack[-1][1] if stack else None
        if entry.link is not None:
            if parent is None:
                raise ErofsError("the root cannot be a hardlink", rule="bad-entry")
            links.append((entry, parent, len(parent.children)))
            parent.children.append((name, parent))  # its place; the target is filled in at the end
            continue
        node = Node(entry, parent, pack_xattrs(entry.xattrs, shown(path)))
        _check(entry)
        nodes.append(node)
        if parent is not None:
            parent.children.append((name, node))
        if stat.S_ISDIR(entry.mode):
            node.nlink = 2
            if parent is not None:
                parent.nlink += 1
            stack.append((path, node))
        elif parent is None:
            raise ErofsError("the root is not a folder", rule="bad-entry")
    _resolve_links(nodes, links)
    return nodes


def _with_root(entries: Iterable[Entry]) -> Iterator[Entry]:
    first = True
    for entry in entries:
        if first and entry.path:
            yield Entry(b"", stat.S_IFDIR | 0o755)
        first = False
        yield entry
    if first:
        yield Entry(b"", stat.S_IFDIR | 0o755)


def _resolve_links(nodes: list[Node], links: list[tuple[Entry, Node, int]]) -> None:
    if not links:
        return
    by_path = {node.entry.path: node for node in nodes}
    for entry, parent, position in links:
        target = by_path.get(entry.link or b"")
        if target is None:
            raise ErofsError(
                f"{shown(entry.path)} is a hardlink to {shown(entry.link or b'')}, which is not in the tree",
                rule="missing-target",
            )
        if target.type == stat.S_IFDIR:
            raise ErofsError(
                f"{shown(entry.path)} is a hardlink to the folder {shown(entry.link or b'')}", rule="missing-target"
            )
        target.nlink += 1
        parent.children[position] = (parent.children[position][0], target)


def _order_error(path: bytes, last: bytes) -> ErofsError:
    if path == last or not path:
        return ErofsError(f"{shown(path)} is in the tree twice", rule="duplicate")
    if path.split(b"/") < last.split(b"/"):
        return ErofsError(f"{shown(path)} comes after {shown(last)}: the tree is not sorted", rule="unsorted")
    return ErofsError(f"{shown(path)} has no parent folder in the tree", rule="missing-parent")


def _check(entry: Entry) -> None:
    kind = stat.S_IFMT(entry.mode)
    wrong = None
    if kind not in layout.FILE_TYPES or entry.mode > 0xFFFF:
        wrong = f"mode {entry.mode:#o} has no file type EROFS knows"
    elif not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX):
        wrong = f"owner {entry.uid}:{entry.gid} is out of range"
    elif not (-_TIME_LIMIT <= entry.mtime < _TIME_LIMIT and 0 <= entry.mtime_ns < 1_000_000_000):
        wrong = f"time {entry.mtime}.{entry.mtime_ns} is out of range"
    elif kind == stat.S_IFREG:
        if not 0 <= entry.size < _SIZE_LIMIT:
            wrong = f"size {entry.size} is out of range"
        elif entry.size and entry.content is None:
            wrong = "it has a size and no content"
    elif kind == stat.S_IFLNK:
        if not 0 < len(entry.target) <= MAX_PATH or b"\0" in entry.target:
            wrong = f"a symlink's target has 1 to {MAX_PATH} bytes, none of them zero"
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        major, minor = split_device(entry.rdev)
        if not (0 <= major <= _MAJOR_MAX and 0 <= minor <= _MINOR_MAX):
            wrong = f"device {major}:{minor} is out of range"
    if wrong:
        raise ErofsError(f"{shown(entry.path)} cannot be written: {wrong}", rule="bad-entry")


def split_device(rdev: int) -> tuple[int, int]:
    """Return major and minor of a device number that `os.makedev` made on Linux.

    Unlike `os.major`, it gives the same result on every operating system.
    """
    return (rdev >> 8 & 0xFFF) | (rdev >> 32 & ~0xFFF), (rdev & 0xFF) | (rdev >> 12 & ~0xFF) & 0xFFFFFFFF


# From a directory on disk.


class FileContent:
    """The bytes of a file on disk.

    The file is opened for each read, because a tree may have more files than a process may keep open.
    """

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def pread(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)


def entries_from_dir(root: Path, *, mtime: int | None = None, owner: tuple[int, int] | None = None) -> Iterator[Entry]:
    """Yield the directory `root` and all in it, in the order that a writer expects.

    `mtime` replaces every time and `owner` every uid and gid, so that the result does not depend on who made the
    directory, and when.  Hardlinks within the tree stay hardlinks.  Raises `OSError` when something cannot be read.
    """
    seen: dict[tuple[int, int], bytes] = {}
    pending = [b""]
    top = os.fsencode(root)
    while pending:
        path = pending.pop()
        full = top + b"/" + path if path else top
        status = os.lstat(full) if path else os.stat(full)  # noqa: PTH116  # these paths are bytes
        entry = _entry_of(path, full, status, seen)
        if mtime is not None:
            entry.mtime, entry.mtime_ns = mtime, 0
        if owner is not None:
            entry.uid, entry.gid = owner
        yield entry
        if stat.S_ISDIR(status.st_mode):
            names = sorted(os.listdir(full), reverse=True)  # noqa: PTH208
            pending += [path + b"/" + name if path else name for name in names]


def _entry_of(path: bytes, full: bytes, status: os.stat_result, seen: dict[tuple[int, int], bytes]) -> Entry:
    entry = Entry(
        path,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns // 1_000_000_000,
        status.st_mtime_ns % 1_000_000_000,
        xattrs={
            os.fsencode(name): os.getxattr(full, name, follow_symlinks=False)
            for name in os.listxattr(full, follow_symlinks=False)
        },
    )
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        first = seen.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            entry.link = first
            return entry
    if stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
        entry.content = FileContent(full)
    elif stat.S_ISLNK(status.st_mode):
        entry.target = os.readlink(full)  # noqa: PTH115
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        entry.rdev = status.st_rdev
    return entry
