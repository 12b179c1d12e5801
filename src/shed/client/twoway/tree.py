"""What two folders have, and what they had in common when they were last alike: one tree of all three."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shed.replica.entry import FILE, FOLDER, LINK, OTHER, Entry

HERE, THERE = 0, 1
"""This machine, and the shed."""
Mark = tuple[int, ...]
Identity = tuple[str, bool, bytes] | None
"""Kind, whether it is executable, and what tells its content: two entries are alike when theirs is the same."""


@dataclass(slots=True)
class Base:
    """What both sides had."""

    kind: str
    executable: bool
    size: int
    content: bytes
    """The digest of a file, or where a link leads."""
    marks: list[Mark | None]
    """By which a file of each side is known to have that content still."""

    @property
    def identity(self) -> Identity:
        """As `Node.ids` have it."""
        return (self.kind, self.executable, self.content)


class Node:
    """One path."""

    __slots__ = ("base", "children", "ids", "now", "sure")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.base: Base | None = None
        self.now: list[Entry | None] = [None, None]
        self.ids: list[Identity] = [None, None]
        """Of what is there `now`, as far as it is known."""
        self.sure: list[Mark | None] = [None, None]
        """The marks by which it is known to be so still."""

    @property
    def odd(self) -> bool:
        """Whether a side has what is no file, folder or link, or what cannot be read: nothing is known of it."""
        return any(entry is not None and entry.kind == OTHER for entry in self.now)

    def agree(self) -> None:
        """Note that both sides are alike."""
        entry, identity = self.now[HERE], self.ids[HERE]
        if entry is None or identity is None:
            self.base = None
        else:
            self.base = Base(entry.kind, identity[1], entry.size, identity[2], list(self.sure))

    def touched(self, side: int) -> bool:
        """Tell whether `side` has made or changed something here or below; deleting is neither."""
        mine = self.ids[side]
        if mine is not None and (self.base is None or mine != self.base.identity):
            return True
        return any(child.touched(side) for child in self.children.values())


def is_executable(entry: Entry) -> bool:
    """Tell whether it is a file that may be run."""
    return entry.kind == FILE and bool(entry.mode & 0o100)


def identity_of(entry: Entry, content: bytes) -> Identity:
    """Return the identity of an entry, of which a file has `content`."""
    if entry.kind == LINK:
        return (LINK, False, entry.link.encode(errors="surrogateescape"))
    return (entry.kind, is_executable(entry), content if entry.kind == FILE else b"")


class Tree:
    """All paths."""

    def __init__(self) -> None:
        self.root = Node()
        self.root.ids = [(FOLDER, False, b"")] * 2

    def find(self, path: str) -> Node | None:
        """Return the node of `path`, the root for an empty one."""
        node: Node | None = self.root
        for part in path.split("/") if path else ():
            node = node.children.get(part) if node is not None else None
        return node

    def make(self, path: str) -> Node:
        """Return the node of `path`, a new one where there is none."""
        node = self.root
        for part in path.split("/") if path else ():
            node = node.children.setdefault(part, Node())
        return node

    def put(self, side: int, path: str, entries: Iterable[tuple[str, Entry]]) -> None:
        """Note that `side` has `entries` at `path` and below, and nothing else.  Raises `ValueError` for nonsense."""
        top = self.find(path)
        if top is not None:
            _clear(top, side)
        for name, entry in entries:
            folder = self.find(name.rpartition("/")[0])
            if folder is None or (folder is not self.root and not _is_folder(folder.now[side])):
                raise ValueError(f"{name!r} is in no folder")
            folder.children.setdefault(name.rpartition("/")[2], Node()).now[side] = entry

    def top(self, path: str) -> str:
        """Return the outermost part of `path` at which the sides may differ."""
        node = self.root
        parts = path.split("/") if path else []
        for count, part in enumerate(parts, 1):
            below = node.children.get(part)
            if below is None or not (_is_folder(below.now[HERE]) and _is_folder(below.now[THERE])):
                return "/".join(parts[:count])
            node = below
        return path

    def known(self, side: int, path: str) -> str:
        """Return the outermost part of `path` of which `side` is not known to have a folder, or all of it."""
        node = self.root
        parts = path.split("/")
        for count, part in enumerate(parts[:-1], 1):
            below = node.children.get(part)
            if below is None or not _is_folder(below.now[side]):
                return "/".join(parts[:count])
            node = below
        return path

    def all(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Yield all that is at `path` and below, but for the root, folders before what is in them."""
        top = self.find(path)
        ahead = [(path, top)] if top is not None else []
        while ahead:
            name, node = ahead.pop()
            if name:
                yield name, node
            ahead += [(f"{name}/{part}" if name else part, child) for part, child in node.children.items()]

    def move_there(self, path: str, new: str, entry: Entry) -> None:
        """Note that what the shed had at `path` is called `new` there now."""
        old, moved = self.make(path), self.make(new)
        _move(old, moved)
        moved.now[THERE] = entry

    def prune(self, path: str) -> None:
        """Forget what is at `path` and below and is nowhere any more, and empty folders that it was in."""
        top = self.find(path)
        if top is not None:
            _prune(top)
        while path and (node := self.find(path)) is not None and _is_empty(node):
            path, _, name = path.rpartition("/")
            folder = self.find(path)
            assert folder is not None
            del folder.children[name]


def _is_folder(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == FOLDER


def _is_empty(node: Node) -> bool:
    return not node.children and node.base is None and node.now == [None, None]


def _clear(node: Node, side: int) -> None:
    node.now[side] = None
    for child in node.children.values():
        _clear(child, side)


def _move(old: Node, new: Node) -> None:
    new.now[THERE], new.ids[THERE], new.sure[THERE] = old.now[THERE], old.ids[THERE], old.sure[THERE]
    old.now[THERE] = old.ids[THERE] = None
    for name, child in old.children.items():
        if child.now[THERE] is not None:
            _move(child, new.children.setdefault(name, Node()))


def _prune(node: Node) -> None:
    for name, child in list(node.children.items()):
        _prune(child)
        if _is_empty(child):
            del node.children[name]
