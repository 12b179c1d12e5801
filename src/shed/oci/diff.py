"""What one file tree has and another has not, as a layer.  Pure: no input or output but the reading of contents.

A layer holds whole files: an inode of which anything changed (an attribute, its content, one of its names) comes with
all its names, because a hardlink into a lower layer is not understood everywhere.  The folders above whatever a layer
holds are in it too: engines that unpack layers one by one would otherwise make them up.

Source: OCI image layer specification, "Change Types" and "Whiteouts".
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from shed.entries import Entry

_MARK = b".wh."
_CHUNK = 1 << 20
_ATTRIBUTES = ("mode", "uid", "gid", "mtime", "mtime_ns", "rdev", "size", "target")


def diff(old: Iterable[Entry], new: Iterable[Entry]) -> Iterator[Entry]:
    """Yield, sorted, the entries of the layer that makes `new` of `old`; whiteouts are empty files.

    Neither tree may hold whiteouts.
    """
    before = {entry.path: entry for entry in old}
    after = {entry.path: entry for entry in new}
    names_before, names_after = _names(before), _names(after)
    paths: set[bytes] = set()
    for inode, names in names_after.items():
        there = before.get(inode)
        if there is None or names_before.get(inode) != names or not _same(there, after[inode]):
            paths |= names
    whiteouts = [_whiteout(path) for path in before.keys() - after.keys() if _is_folder(after.get(_parent(path)))]
    for path in [*paths, *(whiteout.path for whiteout in whiteouts)]:
        while path and (path := _parent(path)) not in paths:
            paths.add(path)
    return iter(
        sorted([*_with_links(sorted(paths, key=_order), after), *whiteouts], key=lambda entry: _order(entry.path))
    )


def _names(tree: Mapping[bytes, Entry]) -> dict[bytes, set[bytes]]:
    """Return all paths of each inode, by the one that is no link."""
    names: dict[bytes, set[bytes]] = {}
    for path, entry in tree.items():
        names.setdefault(path if entry.link is None else entry.link, set()).add(path)
    return names


def _same(old: Entry, new: Entry) -> bool:
    same = all(getattr(old, name) == getattr(new, name) for name in _ATTRIBUTES) and dict(old.xattrs) == dict(
        new.xattrs
    )
    return same and _same_data(old, new)


def _same_data(old: Entry, new: Entry) -> bool:
    if not old.content or not new.content:
        return not old.size
    return all(old.content.pread(_CHUNK, at) == new.content.pread(_CHUNK, at) for at in range(0, new.size, _CHUNK))


def _with_links(paths: Iterable[bytes], tree: Mapping[bytes, Entry]) -> Iterator[Entry]:
    """Yield the entries of `paths`; of the names of one inode the first is the file, wherever it was before."""
    first: dict[bytes, bytes] = {}
    for path in paths:
        inode = path if tree[path].link is None else tree[path].link
        assert inode is not None
        name = first.setdefault(inode, path)
        yield replace(tree[inode], path=path) if name == path else Entry(path, 0, link=name)


def _whiteout(path: bytes) -> Entry:
    folder, slash, name = path.rpartition(b"/")
    return Entry(folder + slash + _MARK + name, stat.S_IFREG | 0o644)


def _is_folder(entry: Entry | None) -> bool:
    return entry is not None and stat.S_ISDIR(entry.mode)


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _order(path: bytes) -> list[bytes]:
    return path.split(b"/") if path else []
