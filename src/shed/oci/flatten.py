"""Layers merged into one tree, as a container runtime would show it.

The tree is built in memory, layer upon layer; contents stay in the layers' files.  For each layer, in this order:

1. whiteouts: ``.wh.NAME`` removes NAME, ``.wh..wh..opq`` removes all that its folder holds; both mean lower layers
   only, wherever they stand in the archive;
2. everything else in the order of the archive, so that the later of two entries of one path wins.

A path is looked up inside the root: a parent that is a symlink is followed, ``..`` in a link's target stops at the
root.  Names lose a leading ``/``; a name that climbs out of the root with ``..`` is refused.  Missing parents are made
``0755 root:root``.  A hardlink is another name of the very file its target names at that moment, so whatever happens to
the target later leaves the link alone.

Sources: OCI image layer specification; publish.md's list of traps; the behaviour of containerd and umoci where the
specification is silent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from shed.entries import MAX_PATH, Entry
from shed.errors import DataError
from shed.oci.tarstream import Member

MAX_FILES = 2_000_000
"""Most tar members of one image, parents made for them, and whiteouts."""
MAX_NAME = 255
MAX_LINKS = 40
"""Symlinks followed for one path, as Linux does."""
MAX_PATHS = 512 << 20
"""Most bytes of all paths of the tree: a deep folder with many files costs its own path for each of them."""
MAX_STEPS = 60_000_000
"""Most components of paths and links to walk for one image: 2,000,000 files at a depth of ten take 20,000,000."""
_MARK = b".wh."
_AUFS = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_XATTR_SPACES = (b"user.", b"trusted.", b"security.")
_OVERLAY = b"trusted.overlay."
"""What overlayfs notes on an upper layer, and an image of such a layer still has: in a lower one it would hide files,
or look for their content elsewhere.
"""
_XATTR_NAMES = (b"system.posix_acl_access", b"system.posix_acl_default")


_PLAIN = Member(b"", stat.S_IFDIR | 0o755)
"""What a folder is that a layer does not describe; never changed."""


class Node:
    """A file of the tree; `children` is None for everything but folders.

    Hardlinks are one node under several names.
    """

    __slots__ = ("children", "member")

    def __init__(self, member: Member, children: dict[bytes, Node] | None = None) -> None:
        self.member = member
        self.children = children


def flatten(layers: Iterable[Iterable[Member]]) -> Iterator[Entry]:
    """Yield the merged tree of `layers`, which are given bottom first, sorted as `Entry` says.

    Each file comes once, its other names as links.

    Raises `DataError`, which names the layer (counted from 1) and the path.
    """
    tree = Tree()
    for number, members in enumerate(layers, 1):
        try:
            tree.apply(members)
        except DataError as error:
            raise DataError(f"layer {number}: {error.message}", code=error.code, hint=error.hint) from None
    return tree.entries()


class Tree:
    """The merged tree of the layers applied so far."""

    def __init__(self) -> None:
        self._root = Node(_PLAIN, {})
        self._files = 0
        self._steps = 0
        self._gone: dict[bytes, dict[bytes, Node]] = {}
        """What this layer's whiteouts removed, and its aufs housekeeping, by folder and name: a hardlink may still mean
        it.
        """

    def apply(self, members: Iterable[Member]) -> None:
        """Put one layer on top.  Raises `DataError`."""
        self._gone = {}
        additions: list[Member] = []
        for member in members:
            self._count()
            parts = split(member.name) if _MARK in member.name else []
            if any(part.startswith(_MARK) for part in parts):
                self._whiteout(parts, member)
            else:
                additions.append(member)
        for member in additions:
            self._add(split(member.name), member)

    def entries(self) -> Iterator[Entry]:
        """Yield the tree, sorted by the components of the path."""
        first_names: dict[int, bytes] = {}
        waiting = [(b"", self._root)]
        total = 0
        while waiting:
            path, node = waiting.pop()
            if len(path) > MAX_PATH:
                raise DataError(f"{_show([path])} is longer than {MAX_PATH} bytes")
            if node.children is not None:
                prefix = path + b"/" if path else b""
                total += len(prefix) * len(node.children) + sum(map(len, node.children))
                if total > MAX_PATHS:
                    raise DataError(
                        f"the paths of the image have more than {MAX_PATHS >> 20} MiB", code="IMAGE_TOO_LARGE"
                    )
                waiting += [(prefix + name, node.children[name]) for name in sorted(node.children, reverse=True)]
            elif (first := first_names.setdefault(id(node), path)) != path:
                yield Entry(path, 0, link=first)
                continue
            yield _entry(path, node.member)

    def _count(self) -> None:
        self._files += 1
        if self._files > MAX_FILES:
            raise DataError(f"the image has more than {MAX_FILES:,} files", code="IMAGE_TOO_LARGE")

    def _walk(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise DataError(
                f"its paths and symlinks have more than {MAX_STEPS:,} components to walk", code="IMAGE_TOO_LARGE"
            )

    def _forget(self, above: list[bytes], name: bytes, node: Node) -> None:
        self._gone.setdefault(b"/".join(above), {})[name] = node

    def _whiteout(self, parts: list[bytes], member: Member) -> None:
        *above, name = parts
        if name == _OPAQUE and not any(part.startswith(_MARK) for part in above):
            folder = self._folder(above)
            if folder is not None and folder.children:
                self._gone.setdefault(b"/".join(above), {}).update(folder.children)
                folder.children.clear()
        elif any(part.startswith(_AUFS) for part in parts):
            if stat.S_ISREG(member.mode):
                self._forget(above, name, Node(member))
        elif any(part.startswith(_MARK) for part in above) or name[len(_MARK) :] in (b"", b".", b".."):
            raise DataError(f"{_show(parts)} is not a valid whiteout")
        else:
            hidden = name[len(_MARK) :]
            folder = self._folder(above)
            if folder is not None and folder.children and hidden in folder.children:
                self._forget(above, hidden, folder.children.pop(hidden))

    def _add(self, parts: list[bytes], member: Member) -> None:
        if not parts:
            if not stat.S_ISDIR(member.mode):
                raise DataError("the root is not a folder")
            self._root.member = member
            return
        if len(parts[-1]) > MAX_NAME:
            raise DataError(f"{_show(parts)} has a name of more than {MAX_NAME} bytes")
        children = self._make_folder(parts[:-1])
        name = parts[-1]
        there = children.get(name)
        if member.is_hardlink:
            children[name] = self._link_target(parts, member)
        elif stat.S_ISDIR(member.mode):
            if there is not None and there.children is not None:
                there.member = member
            else:
                children[name] = Node(member, {})
        else:
            if stat.S_ISLNK(member.mode) and not 0 < len(member.target) <= MAX_PATH:
                raise DataError(
                    f"{_show(parts)} is a symlink to {len(member.target)} bytes, 1 to {MAX_PATH} are possible"
                )
            children[name] = Node(member)

    def _link_target(self, parts: list[bytes], member: Member) -> Node:
        target = split(member.target)
        folder = self._folder(target[:-1])
        node = folder.children.get(target[-1]) if target and folder and folder.children else None
        if node is None:
            node = self._removed(target)
        if node is None:
            raise DataError(f"{_show(parts)} is a hardlink to {_show(target)}, which is not there")
        if node.children is not None:
            raise DataError(f"{_show(parts)} is a hardlink to {_show(target)}, which is a folder")
        return node

    def _removed(self, path: list[bytes]) -> Node | None:
        for cut in range(len(path), 0, -1) if self._gone else ():
            self._walk(len(path))
            node = self._gone.get(b"/".join(path[: cut - 1]), {}).get(path[cut - 1])
            for part in path[cut:]:
                node = node.children.get(part) if node and node.children else None
            if node is not None:
                return node
        return None

    def _make_folder(self, parts: list[bytes]) -> dict[bytes, Node]:
        folder = self._folder(parts, make=True)
        assert folder is not None
        assert folder.children is not None
        return folder.children

    def _folder(self, parts: list[bytes], *, make: bool = False) -> Node | None:
        """Return the folder that `parts` lead to inside the root, symlinks followed.

        What is missing is made or, without `make`, answered with None.  Raises `DataError` when something in the way is
        neither folder nor symlink and `make` was asked for, or when links lead nowhere.
        """
        self._walk(len(parts))
        trail = [self._root]
        todo = parts[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            here = trail[-1].children
            assert here is not None
            node = here.get(part)
            if node is None:
                if not make:
                    return None
                if len(part) > MAX_NAME:
                    raise DataError(f"{_show(parts)} has a name of more than {MAX_NAME} bytes")
                self._count()
                node = here[part] = Node(_PLAIN, {})
            if node.children is not None:
                trail.append(node)
                if len(trail) > MAX_PATH:
                    raise DataError(f"{_show(parts)} is nested too deeply")
            elif stat.S_ISLNK(node.member.mode):
                links += 1
                if links > MAX_LINKS:
                    raise DataError(f"{_show(parts)} leads through too many symlinks")
                if node.member.target.startswith(b"/"):
                    del trail[1:]
                steps = [step for step in reversed(node.member.target.split(b"/")) if step not in (b"", b".")]
                self._walk(len(steps))
                todo += steps
            elif make:
                raise DataError(f"{_show(parts)} is not a folder, but holds files")
            else:
                return None
        return trail[-1]


def split(name: bytes) -> list[bytes]:
    """Return the components of a tar member's name below the root.

    Raises `DataError` when it climbs out, or is too long.
    """
    if len(name) > MAX_PATH:
        raise DataError(f"{_show([name])} is longer than {MAX_PATH} bytes")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise DataError(
                    f"{_show([name])} leads out of the root", hint="the archive is broken or hostile: do not use it"
                )
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def _entry(path: bytes, member: Member) -> Entry:
    return Entry(
        path=path,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=member.mtime,
        mtime_ns=member.mtime_ns,
        rdev=os.makedev(member.major, member.minor),
        size=member.size,
        target=member.target,
        xattrs=member.xattrs and {key: value for key, value in member.xattrs.items() if _is_kept(key)},
        content=member.content,
    )


def _is_kept(xattr: bytes) -> bool:
    return xattr in _XATTR_NAMES or (xattr.startswith(_XATTR_SPACES) and not xattr.startswith(_OVERLAY))


def _show(parts: list[bytes]) -> str:
    return repr(b"/".join(parts).decode(errors="backslashreplace"))[:200]
