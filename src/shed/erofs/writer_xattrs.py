"""Extended attributes, as they lie behind an inode."""

from __future__ import annotations

from collections.abc import Mapping

from shed.erofs import layout
from shed.erofs.errors import ErofsError

_VALUE_MAX = 0xFFFF
_ICOUNT_MAX = 0xFFFF
_REST_MAX = 0xFF


def pack_xattrs(xattrs: Mapping[bytes, bytes], what: str) -> bytes:
    """Return header and entries, sorted by name; empty when there are none.

    `what` names the file for the `ErofsError` that is raised for names and values EROFS cannot hold.
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
