"""Extended attributes, read and written: inline entries behind an inode, shared ones, and long name prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.erofs.image_file import ImageFile
from shed.erofs.inode import Inode
from shed.erofs.superblock import Description

_VALUE_MAX = 0xFFFF
_ICOUNT_MAX = 0xFFFF
_REST_MAX = 0xFF

Prefixes = tuple[bytes, ...]
"""The long name prefixes of an image, by their number."""


def read_xattrs(file: ImageFile, description: Description, inode: Inode, prefixes: Prefixes) -> dict[bytes, bytes]:
    """Return full names and values of the xattrs of `inode`; raises `ErofsError` when they are malformed."""
    return {name: file.map[start:end] for name, start, end in locate_xattrs(file, description, inode, prefixes)}


def locate_xattrs(
    file: ImageFile, description: Description, inode: Inode, prefixes: Prefixes
) -> list[tuple[bytes, int, int]]:
    """Return the xattrs of `inode`: the full name, and the bytes of the image where the value begins and ends.

    Raises `ErofsError` when they are malformed.
    """
    if not inode.xattr_icount:
        return []
    start = inode.body - layout.xattr_ibody_size(inode.xattr_icount)
    _, shared_count = layout.XATTR_IBODY_HEADER.unpack_from(file.map, start)
    shared = start + layout.XATTR_IBODY_HEADER.size
    inline = shared + layout.XATTR_SHARED_ID_SIZE * shared_count
    if inline > inode.body:
        raise ErofsError(f"{shared_count} shared xattrs do not fit", rule="xattr-outside", nid=inode.nid)
    base = description.superblock.xattr_blkaddr * layout.BLOCK_SIZE
    found = []
    for index in range(shared, inline, layout.XATTR_SHARED_ID_SIZE):
        identity = int.from_bytes(file.map[index : index + layout.XATTR_SHARED_ID_SIZE], "little")
        found.append(
            _read_entry(file, base + identity * layout.XATTR_SHARED_ID_SIZE, description.limit, prefixes, inode.nid)
        )
    while inline < inode.body:
        found.append(_read_entry(file, inline, inode.body, prefixes, inode.nid))
        inline = layout.round_up(found[-1][2], 4)
    if len(found) > 1 and len({name for name, _, _ in found}) < len(found):
        raise ErofsError("an xattr occurs twice", rule="xattr-duplicate", nid=inode.nid)
    return found


def _read_entry(file: ImageFile, position: int, limit: int, prefixes: Prefixes, nid: int) -> tuple[bytes, int, int]:
    """Return name, start and end of the value of the entry at `position`, which must end before `limit`."""
    start = position + layout.XATTR_ENTRY.size
    if start > limit:
        raise ErofsError("xattr entry is cut off", rule="xattr-outside", nid=nid)
    name_length, index, value_length = layout.XATTR_ENTRY.unpack_from(file.map, position)
    value = start + name_length
    if value + value_length > limit:
        raise ErofsError("xattr is outside its place", rule="xattr-outside", nid=nid)
    if index & layout.XATTR_LONG_PREFIX:
        number = index & layout.XATTR_LONG_PREFIX_MASK
        if number >= len(prefixes):
            raise ErofsError(
                f"xattr uses the undeclared long prefix {number}", rule="xattr-prefixes-undeclared", nid=nid
            )
        prefix = prefixes[number]
    elif index in layout.XATTR_PREFIXES:
        prefix = layout.XATTR_PREFIXES[index]
    else:
        raise ErofsError(f"xattr has unknown name index {index}", rule="xattr-index", nid=nid)
    name = prefix + file.map[start:value]
    if b"\0" in name or len(name) > layout.NAME_MAX:
        raise ErofsError(f"bad xattr name {name!r}", rule="xattr-name", nid=nid)
    return name, value, value + value_length


def read_prefixes(description: Description, read: Callable[[int, int], bytes]) -> Prefixes:
    """Return the long name prefixes.

    `read(length, offset)` returns bytes of the file or inode that contains them, fewer at its end.  Raises `ErofsError`
    when the table is malformed.
    """
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


# Writing.


def pack_xattrs(xattrs: Mapping[bytes, bytes], what: str) -> bytes:
    """Return the header and the entries, sorted by name; empty bytes when there are no xattrs.

    Raises `ErofsError` for names and values that EROFS cannot store; `what` names the file in its message.
    """
    if not xattrs:
        return b""
    parts = [layout.XATTR_IBODY_HEADER.pack(0, 0)]
    for name in sorted(xattrs):
        value = xattrs[name]
        index, rest = _split_name(name, what)
        if len(value) > _VALUE_MAX:
            raise ErofsError(
                f"xattr {name.decode(errors='backslashreplace')!r} of {what} has {len(value)} bytes; at most "
                f"{_VALUE_MAX} fit",
                rule="xattr-too-large",
                hint="drop it where the layer is made",
            )
        entry = layout.XATTR_ENTRY.pack(len(rest), index, len(value)) + rest + value
        parts.append(entry.ljust(layout.xattr_entry_size(len(rest), len(value)), b"\0"))
    packed = b"".join(parts)
    if xattr_icount(packed) > _ICOUNT_MAX:
        raise ErofsError(
            f"the xattrs of {what} have {len(packed)} bytes, more than an inode can hold",
            rule="xattr-too-large",
            hint="drop some where the layer is made",
        )
    return packed


def xattr_icount(packed: bytes) -> int:
    """Return i_xattr_icount for what `pack_xattrs` returned."""
    return (len(packed) - layout.XATTR_IBODY_HEADER.size) // 4 + 1 if packed else 0


def _split_name(name: bytes, what: str) -> tuple[int, bytes]:
    for index, prefix in layout.XATTR_PREFIXES.items():
        whole = not prefix.endswith(b".")
        if name == prefix if whole else name.startswith(prefix):
            rest = name[len(prefix) :]
            if not (whole or rest) or len(rest) > _REST_MAX or b"\0" in rest:
                break
            return index, rest
    raise ErofsError(
        f"xattr name {name.decode(errors='backslashreplace')!r} of {what} cannot be stored", rule="xattr-name"
    )
