"""PAX extended headers: records that replace or extend the fields of the next tar header.  Pure: no input or output.

Sources: POSIX.1-2017 pax; "Storing Sparse Files" of the GNU tar manual; star(5) and libarchive's tar(5) for the xattrs.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from shed.errors import DataError

MAX_SEGMENTS = 1 << 20
"""Most data segments of one sparse file."""
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_TEXTS = {b"path", b"linkpath", b"GNU.sparse.name"}


@dataclass(slots=True)
class Pax:
    """What the extended headers before an entry say; None and empty where they say nothing."""

    path: bytes | None = None
    linkpath: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: tuple[int, int] | None = None
    """Seconds and nanoseconds."""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse_version: tuple[int, int] | None = None
    sparse_size: int | None = None
    """Real size of a sparse file."""
    sparse_map: list[tuple[int, int]] | None = None
    """Of versions 0.0 and 0.1; in 1.0 the map stands before the data."""


def parse_pax(data: bytes, into: Pax) -> None:
    """Read the records in `data` into `into`.  Raises `DataError`."""
    records = _records(data)
    versions = [0, 0]
    numbers: list[int] = []
    sparse_name: bytes | None = None
    backup_xattrs: dict[bytes, bytes] = {}
    for key, value in records:
        if key in _TEXTS and b"\0" in value:
            raise DataError("a PAX header has a NUL in a name")
        if key == b"path":
            into.path = value or None
        elif key == b"linkpath":
            into.linkpath = value or None
        elif key == b"size":
            into.size = _number(key, value) if value else None
        elif key in (b"uid", b"gid"):
            sign = -1 if value.startswith(b"-") else 1
            setattr(into, key.decode(), sign * _number(key, value.removeprefix(b"-")) if value else None)
        elif key == b"mtime":
            into.mtime = parse_time(value) if value else None
        elif key.startswith(_SCHILY):
            into.xattrs[key[len(_SCHILY) :]] = value
        elif key.startswith(_LIBARCHIVE):
            backup_xattrs[unquote_to_bytes(key[len(_LIBARCHIVE) :])] = _base64(value)
        elif key == b"GNU.sparse.major":
            versions[0] = _number(key, value)
            into.sparse_version = (versions[0], versions[1])
        elif key == b"GNU.sparse.minor":
            versions[1] = _number(key, value)
            into.sparse_version = (versions[0], versions[1])
        elif key == b"GNU.sparse.name":
            sparse_name = value
        elif key in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
            into.sparse_size = _number(key, value)
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (len(numbers) % 2 == 0) != (key == b"GNU.sparse.offset"):
                raise DataError("a PAX header has a broken sparse map")
            numbers.append(_number(key, value))
            into.sparse_map = []
        elif key == b"GNU.sparse.map":
            numbers = [_number(key, number) for number in value.split(b",")] if value else []
            into.sparse_map = []
    if sparse_name is not None:
        into.path = sparse_name
    for name, value in backup_xattrs.items():
        into.xattrs.setdefault(name, value)
    if into.sparse_map is not None and not into.sparse_map:
        into.sparse_map = pairs(numbers)


def pairs(numbers: list[int]) -> list[tuple[int, int]]:
    """Return the (offset, length) pairs in a flat list.

    Raises `DataError` when one number is left over, or there are too many.
    """
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SEGMENTS:
        raise DataError("a PAX header has a broken sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def parse_time(value: bytes) -> tuple[int, int]:
    """Return seconds and nanoseconds of a PAX time, rounded down; the nanoseconds are never negative."""
    match = _TIME.fullmatch(value)
    if not match:
        raise DataError(f"bad time in a PAX header: {value[:40]!r}")
    sign, whole, fraction = match.groups()
    digits = fraction or b""
    seconds, nanoseconds = int(whole), int(digits[:9].ljust(9, b"0"))
    if not sign:
        return seconds, nanoseconds
    if digits[9:].strip(b"0"):
        nanoseconds += 1
    return (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    result = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = data[position : max(space, position)]
        end = position + int(length) if length.isdigit() else 0
        if end <= space + 1 or end > len(data) or data[end - 1] != 0x0A:
            raise DataError("a PAX header is damaged")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals:
            raise DataError("a PAX header is damaged")
        result.append((key, value))
        position = end
    return result


def _number(key: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise DataError(f"bad number in a PAX header: {key.decode()}={value[:40]!r}")
    return int(value)


def _base64(value: bytes) -> bytes:
    try:
        return binascii.a2b_base64(value + b"=" * (-len(value) % 4))
    except binascii.Error:
        raise DataError("a PAX header has a broken xattr") from None
