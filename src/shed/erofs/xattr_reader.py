"""Reading extended attributes: inline entries, shared ones, and long name prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.erofs.image_file import ImageFile
from shed.erofs.inode import Inode
from shed.erofs.superblock import Description

Prefixes = tuple[bytes, ...]
"""Long name prefixes, by their number."""


def read_xattrs(file: ImageFile, description: Description, inode: Inode, prefixes: Prefixes) -> dict[bytes, bytes]:
    """Return full names and values of the xattrs of `inode`; raises `ErofsError` when they are malformed."""
    found: dict[bytes, bytes] = {}
    if not inode.xattr_icount:
        return found
    start = inode.body - layout.xattr_ibody_size(inode.xattr_icount)
    _, shared_count = layout.XATTR_IBODY_HEADER.unpack_from(file.map, start)
    position = start + layout.XATTR_IBODY_HEADER.size
    inline = position + layout.XATTR_SHARED_ID_SIZE * shared_count
    if inline > inode.body:
        raise ErofsError(f"{shared_count} shared xattrs do not fit", rule="xattr-outside", nid=inode.nid)
    base = description.superblock.xattr_blkaddr * layout.BLOCK_SIZE
    for index in range(position, inline, layout.XATTR_SHARED_ID_SIZE):
        identity = int.from_bytes(file.map[index : index + layout.XATTR_SHARED_ID_SIZE], "little")
        name, value, _ = _entry(file, base + identity * layout.XATTR_SHARED_ID_SIZE, description.limit, prefixes, inode.nid)
        _add(found, name, value, inode.nid)
    while inline < inode.body:
        name, value, inline = _entry(file, inline, inode.body, prefixes, inode.nid)
        _add(found, name, value, inode.nid)
    return found


def _add(found: dict[bytes, bytes], name: bytes, value: bytes, nid: int) -> None:
    if name in found:
        raise ErofsError(f"xattr {name!r} occurs twice", rule="xattr-duplicate", nid=nid)
    found[name] = value


def _entry(file: ImageFile, position: int, limit: int, prefixes: Prefixes, nid: int) -> tuple[bytes, bytes, int]:
    """Return name and value of the entry at `position`, which must end before `limit`, and where the next one begins."""
    start = position + layout.XATTR_ENTRY.size
    if start > limit:
        raise ErofsError("xattr entry is cut off", rule="xattr-outside", nid=nid)
    name_length, index, value_length = layout.XATTR_ENTRY.unpack_from(file.map, position)
    end = start + name_length + value_length
    if end > limit:
        raise ErofsError("xattr is outside its place", rule="xattr-outside", nid=nid)
    if index & layout.XATTR_LONG_PREFIX:
        number = index & layout.XATTR_LONG_PREFIX_MASK
        if number >= len(prefixes):
            raise ErofsError(f"xattr uses the undeclared long prefix {number}", rule="xattr-prefixes-undeclared", nid=nid)
        prefix = prefixes[number]
    elif index in layout.XATTR_PREFIXES:
        prefix = layout.XATTR_PREFIXES[index]
    else:
        raise ErofsError(f"xattr has unknown name index {index}", rule="xattr-index", nid=nid)
    name = prefix + file.map[start : start + name_length]
    if b"\0" in name or len(name) > layout.NAME_MAX:
        raise ErofsError(f"bad xattr name {name!r}", rule="xattr-name", nid=nid)
    return name, file.map[start + name_length : end], layout.round_up(end, 4)


def read_prefixes(description: Description, read: Callable[[int, int], bytes]) -> Prefixes:
    """Return the long name prefixes; `read(length, offset)` returns bytes of what holds them, fewer at its end."""
    return tuple(_prefixes(description, read))


def _prefixes(description: Description, read: Callable[[int, int], bytes]) -> Iterator[bytes]:
    superblock = description.superblock
    if not description.declares(layout.INCOMPAT_XATTR_PREFIXES):
        return
    position = superblock.xattr_prefix_start * 4
    for _ in range(superblock.xattr_prefix_count):
        head = read(2, position)
        size = int.from_bytes(head, "little")
        record = read(size, position + 2)
        if len(head) < 2 or not size or len(record) < size or size - 1 > layout.NAME_MAX:
            raise ErofsError("table of xattr name prefixes is malformed", rule="xattr-prefixes")
        base = layout.XATTR_PREFIXES.get(record[0])
        if base is None:
            raise ErofsError(f"long xattr prefix has unknown name index {record[0]}", rule="xattr-prefixes")
        yield base + record[1:]
        position = layout.round_up(position + 2 + size, 4)
