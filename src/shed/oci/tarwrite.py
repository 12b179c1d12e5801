"""A tree of entries as one tar stream, for writers that read tars.

POSIX ustar headers, and a PAX header before those whose values do not fit: long names and targets, large numbers, times
before 1970 and with nanoseconds, xattrs (``SCHILY.xattr.NAME``, raw).  Names and targets are written as the bytes they
are, whatever their encoding. Sparse files are expanded.  The same entries give the same bytes.

Sources: POSIX.1-2017 pax; star(5) for the xattrs.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator

from shed.entries import Entry
from shed.errors import DataError
from shed.oci.tarheader import BLOCK

_CHUNK = 1 << 20
_LAYOUT = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_END = bytes(2 * BLOCK)
_BLANK_CHECKSUM = b" " * 8
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_MAX_NAME = 100
"""Bytes of a name or a target that fit into a header."""
_MAX_ID, _MAX_LONG = 8**7 - 1, 8**11 - 1
"""Largest numbers that fit: owners; sizes and times."""


def write_tar(entries: Iterable[Entry], on_bytes: Callable[[int], None] = lambda count: None) -> Iterator[bytes]:
    """Yield the tar of `entries`, piece by piece; `on_bytes` hears how many more bytes of contents are in it.

    A hardlink follows the file that it is another name of.  Raises `DataError` for a socket, which a tar cannot hold,
    and for a content that is shorter than its entry says.
    """
    written: set[bytes] = set()
    waiting: dict[bytes, list[bytes]] = {}
    for entry in entries:
        if entry.link is not None:
            if entry.link in written:
                yield _head(entry.path, b"1", target=entry.link)
            else:
                waiting.setdefault(entry.link, []).append(entry.path)
            continue
        yield _entry_head(entry)
        if stat.S_ISREG(entry.mode):
            yield from _data(entry, on_bytes)
        if not stat.S_ISDIR(entry.mode):
            written.add(entry.path)
            for path in waiting.pop(entry.path, ()):
                yield _head(path, b"1", target=entry.path)
    if waiting:
        raise DataError(f"a hardlink leads to {_show(next(iter(waiting)))}, which is not there")
    yield _END


def _entry_head(entry: Entry) -> bytes:
    kind = _TYPES.get(stat.S_IFMT(entry.mode))
    if kind is None:
        raise DataError(f"{_show(entry.path)} is a socket, which a tar cannot hold")
    is_device = kind in b"34"
    return _head(
        (entry.path or b".") + b"/" if kind == b"5" else entry.path,
        kind,
        target=entry.target if kind == b"2" else b"",
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size if kind == b"0" else 0,
        mtime=(entry.mtime, entry.mtime_ns),
        device=(os.major(entry.rdev), os.minor(entry.rdev)) if is_device else (0, 0),
        records=[(b"SCHILY.xattr." + name, entry.xattrs[name]) for name in sorted(entry.xattrs)]
        if entry.xattrs
        else [],
    )


def _head(
    path: bytes,
    kind: bytes,
    *,
    target: bytes = b"",
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: tuple[int, int] = (0, 0),
    device: tuple[int, int] = (0, 0),
    records: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the header blocks of one member: a PAX header if it takes one, and the member's own."""
    extended = list(records)
    if len(path) > _MAX_NAME:
        extended.append((b"path", path))
    if len(target) > _MAX_NAME:
        extended.append((b"linkpath", target))
    for key, number, most in ((b"uid", uid, _MAX_ID), (b"gid", gid, _MAX_ID), (b"size", size, _MAX_LONG)):
        if number > most:
            extended.append((key, b"%d" % number))
    seconds, nanoseconds = mtime
    if nanoseconds or not 0 <= seconds <= _MAX_LONG:
        extended.append((b"mtime", _time(seconds, nanoseconds)))
        seconds = 0
    fields = [
        path[:_MAX_NAME], b"%07o" % mode, _octal(uid, 7), _octal(gid, 7), _octal(size, 11), _octal(seconds, 11),
        _BLANK_CHECKSUM, kind, target[:_MAX_NAME], b"ustar\x0000", b"", b"", _octal(device[0], 7),
        _octal(device[1], 7), b"",
    ]  # fmt: skip
    if not extended:
        return _block(fields)
    data = b"".join(_record(key, value) for key, value in extended)
    return _head(b"PaxHeaders", b"x", size=len(data)) + data + _padding(len(data)) + _block(fields)


def _block(fields: list[bytes]) -> bytes:
    fields[6] = b"%06o\0 " % sum(_LAYOUT.pack(*fields))
    return _LAYOUT.pack(*fields)


def _octal(number: int, digits: int) -> bytes:
    """Return `number` as a header has it; 0 when it does not fit, because the PAX header says it then."""
    return b"%0*o" % (digits, number if number < 8**digits else 0)


def _record(key: bytes, value: bytes) -> bytes:
    """Return one PAX record: its own length in decimal, a space, ``key=value`` and a line feed."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _time(seconds: int, nanoseconds: int) -> bytes:
    """Return the decimal number of seconds, with nine digits of fraction or none."""
    if seconds < 0 and nanoseconds:
        return b"-%d.%09d" % (-seconds - 1, 1_000_000_000 - nanoseconds)
    return b"%d.%09d" % (seconds, nanoseconds) if nanoseconds else b"%d" % seconds


def _data(entry: Entry, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    position = 0
    while position < entry.size:
        data = entry.content.pread(min(_CHUNK, entry.size - position), position) if entry.content else b""
        if not data:
            raise DataError(f"{_show(entry.path)} has {position} bytes, not {entry.size}")
        yield data
        position += len(data)
        on_bytes(len(data))
    yield _padding(entry.size)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _show(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace"))[:200]
