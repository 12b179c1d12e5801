"""Writes a file tree as a tar archive: the same entries give the same bytes.

Plain ustar headers, and a PAX header before those members that need one.  Sources: POSIX.1-2017 pax; star(5) for the xattrs.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from typing import BinaryIO

from shed.entries import Entry
from shed.errors import DataError
from shed.oci.tarheader import BLOCK

_LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_NAME = 100
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777
_CHUNK = 1 << 20


def write_tar(entries: Iterable[Entry], out: BinaryIO) -> None:
    """Write `entries`, in order, as an archive; links must come after what they name.  Raises `DataError` for what tar cannot hold."""
    for entry in entries:
        out.write(_headers(entry))
        if entry.link is None and entry.content:
            for at in range(0, entry.size, _CHUNK):
                data = entry.content.pread(min(_CHUNK, entry.size - at), at)
                if len(data) < min(_CHUNK, entry.size - at):
                    raise DataError(f"{entry.path!r} became shorter while it was read")
                out.write(data)
            out.write(_padding(entry.size))
    out.write(bytes(2 * BLOCK))


def _headers(entry: Entry) -> bytes:
    """Return the header of an entry, with a PAX header before it where it needs one."""
    kind = b"1" if entry.link is not None else _TYPES.get(stat.S_IFMT(entry.mode))
    if kind is None:
        raise DataError(f"{entry.path!r} is of a type that tar does not know: {entry.mode:o}")
    name = (entry.path or b".") + (b"/" if kind == b"5" else b"")
    link = entry.target if entry.link is None else entry.link
    wanted = {
        b"path": name if len(name) > _NAME else b"",
        b"linkpath": link if len(link) > _NAME else b"",
        b"size": _digits(entry.size, _MAX_NUMBER),
        b"uid": _digits(entry.uid, _MAX_ID),
        b"gid": _digits(entry.gid, _MAX_ID),
        b"mtime": b"" if 0 <= entry.mtime <= _MAX_NUMBER and not entry.mtime_ns else _time(entry.mtime, entry.mtime_ns),
    }
    records = {key: value for key, value in wanted.items() if value}
    records |= {b"SCHILY.xattr." + key: value for key, value in sorted(entry.xattrs.items())}
    extended = b""
    if records:
        data = b"".join(_record(key, value) for key, value in records.items())
        extended = _block(b"PaxHeaders", b"x", size=len(data)) + data + _padding(len(data))
    return extended + _block(name, kind, entry, link=link, size=0 if b"size" in records else entry.size)


def _block(name: bytes, kind: bytes, entry: Entry | None = None, *, link: bytes = b"", size: int) -> bytes:
    """Return one header block; numbers that do not fit are 0, and in the PAX header."""
    entry = entry or Entry(b"", 0o644)
    numbers = [_octal(entry.mode & 0o7777, 8), *(_octal(number if number <= _MAX_ID else 0, 8) for number in (entry.uid, entry.gid))]
    numbers += [_octal(size, 12), _octal(entry.mtime if 0 <= entry.mtime <= _MAX_NUMBER else 0, 12)]
    device = [_octal(number, 8) for number in (os.major(entry.rdev), os.minor(entry.rdev))]
    fields = (name[:_NAME], *numbers, b" " * 8, kind, link[:_NAME], b"ustar\x0000", b"", b"", *device, b"")
    block = _LAYOUT.pack(*fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, length: int) -> bytes:
    return b"%0*o\0" % (length - 1, number)


def _digits(number: int, most: int) -> bytes:
    return b"%d" % number if number > most else b""


def _time(seconds: int, nanoseconds: int) -> bytes:
    if seconds < 0 and nanoseconds:  # the fraction of a PAX time counts away from zero
        seconds, nanoseconds = seconds + 1, 1_000_000_000 - nanoseconds
        sign = b"-" if not seconds else b""
    else:
        sign = b""
    fraction = b".%09d" % nanoseconds if nanoseconds else b""
    return sign + b"%d" % seconds + fraction


def _record(key: bytes, value: bytes) -> bytes:
    """Return ``LENGTH KEY=VALUE`` and a newline, in which the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d" % length + rest


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)
