"""One 512-byte tar header block: ustar, GNU, STAR and v7.  Pure: no input or output.

Sources: POSIX.1-2017 pax, "Basic Tar Format" of the GNU tar manual.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from shed.errors import DataError

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

_LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_SPARSE = 386
"""Where a GNU header's first four (offset, length) pairs start; 12 bytes each number."""
_OCTAL = b"01234567"
_EXTENDED = b"xXgLKV"
"""Types of members that only say something about others."""


@dataclass(slots=True)
class Header:
    """The fields of a header block, decoded."""

    type: bytes
    size: int
    name: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0


def parse_header(block: bytes) -> Header:
    """Return the fields of `block`; of an extended header only its type and size.

    Raises `DataError` when it is no tar header.
    """
    name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, _, _, major, minor, prefix, trailer = (
        _LAYOUT.unpack(block)
    )
    _check(block, checksum)
    if kind in _EXTENDED:
        return Header(kind, parse_number(size))
    if folder := _prefix(magic, prefix, trailer):
        name = folder + b"/" + first_text(name)
    is_device = kind in b"34"
    return Header(
        type=kind,
        size=parse_number(size),
        name=first_text(name),
        mode=parse_number(mode) & 0o7777,
        uid=parse_number(uid),
        gid=parse_number(gid),
        mtime=parse_number(mtime),
        linkname=first_text(linkname),
        major=parse_number(major) if is_device else 0,
        minor=parse_number(minor) if is_device else 0,
    )


def parse_number(field: bytes) -> int:
    """Return a number field: octal digits, or base 256 when the first bit is set; negative when the second is too.

    What stands behind a NUL that ends the digits is rubbish, as in GNU tar, Go and Python.  Raises `DataError`.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = first_text(field.lstrip(b" \0")).rstrip(b" ")
    if not digits:
        return 0
    if digits.translate(None, _OCTAL):
        raise DataError(f"bad number in a tar header: {digits!r}")
    return int(digits, 8)


def gnu_sparse_pairs(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    """Return up to `count` (offset, length) pairs at `start` of a GNU sparse header or of a block that continues it."""
    pairs = []
    for at in range(start, start + 24 * count, 24):
        if not block[at]:
            break
        pairs.append((parse_number(block[at : at + 12]), parse_number(block[at + 12 : at + 24])))
    return pairs


def gnu_sparse_head(block: bytes) -> tuple[list[tuple[int, int]], bool, int]:
    """Return the pairs in a GNU sparse header, whether more blocks of them follow, and the file's real size."""
    return gnu_sparse_pairs(block, _SPARSE, 4), block[482] != 0, parse_number(block[483:495])


def gnu_sparse_more(block: bytes) -> tuple[list[tuple[int, int]], bool]:
    """Return the pairs in a block that continues a GNU sparse header, and whether yet another follows."""
    return gnu_sparse_pairs(block, 0, 21), block[504] != 0


def _check(block: bytes, checksum: bytes) -> None:
    wanted = parse_number(checksum)
    total = sum(block) - sum(checksum) + 8 * ord(" ")
    if total == wanted:
        return
    rest = block[:148] + block[156:]
    signed = total - 256 * sum(byte > 127 for byte in rest)  # as some old programs sum
    if signed != wanted:
        raise DataError("bad checksum in a tar header", hint="the archive is damaged, or not a tar archive")


def _prefix(magic: bytes, prefix: bytes, trailer: bytes) -> bytes:
    """Return the folder that stands before the name, empty without one; `magic` has the version behind it.

    Of ``ustar`` the version does not matter: Ant, Maven and JRuby leave NULs or spaces there.  Go before 1.8 wrote a
    prefix in GNU headers, where times belong: what is no time there and is ASCII is one, as Go itself reads it today.
    """
    if magic.startswith(b"ustar\0"):
        # STAR keeps times behind a shorter prefix
        return first_text(prefix[:131] if trailer[8:] == b"tar\0" else prefix)
    if magic == b"ustar  \0" and prefix[0]:
        try:
            parse_number(prefix[:12])
            parse_number(prefix[12:24])
        except DataError:
            folder = first_text(prefix)
            return folder if folder.isascii() else b""
    return b""


def first_text(field: bytes) -> bytes:
    """Return what stands before the first NUL of `field`: what is behind it is rubbish."""
    return field.partition(b"\0")[0]
