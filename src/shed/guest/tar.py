"""The tar streams of `shed cp`: members as POSIX has them (ustar, with pax records for what does not fit).

`tarfile` takes milliseconds for each member on an emulated processor, and half a second to be imported.  What is read
here is what `archive.pack` of any version wrote, and nothing else: all that is odd is an error.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
BUFFER = 256 * 1024
FILE, HARD_LINK, LINK, FOLDER = b"0", b"1", b"2", b"5"
_EXTENDED = b"x"
_LONGEST_HEADER = BUFFER
"""Bytes of pax records, which are held in memory; names and links are far shorter."""
_HEADER = Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 32s 32s 8s 8s 155s 12x")
_CHECKSUM = slice(148, 156)
_MAGIC = b"ustar\x0000"
_SECOND = 1_000_000_000
_MOST_OCTAL = {8: 0o7777777, 12: 0o77777777777}
_END = bytes(BLOCK)


class ArchiveError(Exception):
    """What cannot be copied, and why: a sentence."""


class Member:
    """A member: `mtime` in nanoseconds, `link` what a link names, `kind` None for what is none of the four."""

    __slots__ = ("gid", "kind", "link", "mode", "mtime", "name", "size", "uid")

    def __init__(self, name: str, kind: bytes | None) -> None:
        self.name = name
        self.kind = kind
        self.mode = 0o644
        self.uid = self.gid = self.size = self.mtime = 0
        self.link = ""


def header(member: Member) -> bytes:
    """Return all that stands before the content of `member`."""
    assert member.kind is not None
    records: dict[str, bytes] = {}
    texts, numbers = {}, {}
    for key, text in (("path", member.name), ("linkpath", member.link)):
        texts[key] = field = text.encode(errors="surrogateescape")
        if len(field) > 100 or not field.isascii():
            records[key] = field
    for key, value in (("uid", member.uid), ("gid", member.gid), ("size", member.size)):
        numbers[key] = value
        if value > _MOST_OCTAL[12 if key == "size" else 8]:
            records[key], numbers[key] = b"%d" % value, 0
    seconds, rest = divmod(abs(member.mtime), _SECOND)
    if rest or member.mtime < 0 or seconds > _MOST_OCTAL[12]:
        records["mtime"] = b"%s%d.%09d" % (b"-" if member.mtime < 0 else b"", seconds, rest)
        seconds = 0
    values = (*(numbers[key] for key in ("uid", "gid", "size")), seconds)
    block = _block(texts["path"], member.kind, member.mode, values, texts["linkpath"])
    if not records:
        return block
    if any(not _is_utf8(value) for value in records.values()):
        records = {"hdrcharset": b"BINARY", **records}
    content = b"".join(_record(key, value) for key, value in records.items())
    return _block(b"././@PaxHeader", _EXTENDED, 0o644, (0, 0, len(content), 0), b"") + padded(content) + block


def padded(content: bytes) -> bytes:
    """Return `content` and the zeros behind it."""
    return content + padding(len(content))


def padding(size: int) -> bytes:
    """Return the zeros behind content of `size` bytes."""
    return bytes(-size % BLOCK)


def end(size: int) -> bytes:
    """Return the end of a stream that has `size` bytes so far."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % 10240)


def _block(name: bytes, kind: bytes, mode: int, numbers: tuple[int, ...], link: bytes) -> bytes:
    """Return one header; `numbers` are user, group, size and seconds."""
    uid, gid, size, seconds = numbers
    block = bytearray(
        _HEADER.pack(
            name[:100], b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % seconds, b" " * 8,
            kind, link[:100], _MAGIC, b"", b"", b"%07o" % 0, b"%07o" % 0, b"",
        )
    )  # fmt: skip
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(key: str, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (key.encode(), value)
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return b"%d" % length + rest


class Reader:
    """Takes a stream apart; `fill` puts bytes into a buffer and returns how many, 0 at the end.

    Every method raises `ArchiveError` for a stream that ends too soon, or is none.
    """

    def __init__(self, fill: Callable[[memoryview], int | None]) -> None:
        self._fill = fill
        self._buffer = memoryview(bytearray(BUFFER + BLOCK))
        self._start = self._end = 0
        self._left = self._behind = 0
        """Bytes of the member's content that were not read, and of the zeros behind it."""

    def next(self) -> Member | None:
        """Return the next member, past what was not read of the one before; None at the end."""
        for _ in self.content():
            pass
        block = self._block(first=False)
        records: dict[str, bytes] = {}
        if block is not None and block[7] == _EXTENDED:
            size = _number(block[4])
            if size > _LONGEST_HEADER:
                raise ArchiveError(f"the tar stream is damaged: a header of {size} bytes")
            records = _records(bytes(self._take(size + -size % BLOCK)[:size]))
            block = self._block(first=True)
        if block is None:
            return None
        member = Member(
            _text(records.get("path") or _joined(block[14], block[0])), block[7] if block[7] != b"\0" else FILE
        )
        if member.kind not in (FILE, HARD_LINK, LINK, FOLDER):
            raise ArchiveError(f"the tar stream is damaged: {member.name!r} is of an unknown kind")
        member.link = _text(records.get("linkpath") or block[8].partition(b"\0")[0])
        member.mode = _number(block[1])
        member.uid, member.gid, member.size = (
            _decimal(records[key]) if key in records else _number(block[at])
            for key, at in (("uid", 2), ("gid", 3), ("size", 4))
        )
        member.mtime = _nanoseconds(records["mtime"]) if "mtime" in records else _number(block[5]) * _SECOND
        if member.kind == FILE:
            self._left, self._behind = member.size, -member.size % BLOCK
        return member

    def content(self) -> Iterator[memoryview]:
        """Yield the content of the member that came last, in pieces that are good until the next one."""
        while self._left:
            if self._start == self._end:
                self._more()
            piece = self._buffer[self._start : min(self._end, self._start + self._left)]
            self._start += len(piece)
            self._left -= len(piece)
            yield piece
        self._take(self._behind)
        self._behind = 0

    def finish(self) -> None:
        """Read the stream to its end: whoever sends it must not find nobody there."""
        while self._fill(self._buffer):
            pass

    def _block(self, *, first: bool) -> tuple[bytes, ...] | None:
        """Return the fields of the next header; None at the end, which cannot come behind a `first` one."""
        raw = self._take(BLOCK)
        if raw == _END and not first:
            return None
        fields: tuple[bytes, ...] = _HEADER.unpack(raw)
        if fields[9] != _MAGIC or sum(raw) - sum(raw[_CHECKSUM]) + 8 * 0x20 != _number(fields[6]):
            raise ArchiveError("the tar stream is damaged: what should be a header is none")
        return fields

    def _take(self, size: int) -> memoryview:
        """Return the next `size` bytes, at most as many as the buffer holds; good until the next call."""
        while self._end - self._start < size:
            self._more()
        self._start += size
        return self._buffer[self._start - size : self._start]

    def _more(self) -> None:
        if self._start:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        count = self._fill(self._buffer[self._end :])
        if not count:
            raise ArchiveError("the tar stream is damaged: it ends too soon")
        self._end += count


def _joined(prefix: bytes, name: bytes) -> bytes:
    prefix, name = prefix.partition(b"\0")[0], name.partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> str:
    if b"\0" in field:
        raise ArchiveError("the tar stream is damaged: a name with a NUL")
    return field.decode(errors="surrogateescape")


def _number(field: bytes) -> int:
    digits = field.rstrip(b"\0 ")
    if not digits.isdigit():
        raise ArchiveError("the tar stream is damaged: a header with a number that is none")
    try:
        return int(digits, 8)
    except ValueError:
        raise ArchiveError("the tar stream is damaged: a header with a number that is none") from None


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise ArchiveError("the tar stream is damaged: a header with a number that is none")
    return int(value)


def _nanoseconds(value: bytes) -> int:
    whole, _, part = value.removeprefix(b"-").partition(b".")
    nanoseconds = _decimal(whole[:11] or b"0") * _SECOND + _decimal(part[:9].ljust(9, b"0"))
    return -nanoseconds if value.startswith(b"-") else nanoseconds


def _records(content: bytes) -> dict[str, bytes]:
    """Return pax records by their keys."""
    found, at = {}, 0
    while at < len(content):
        digits = content[at : at + 20].partition(b" ")[0]
        size = _decimal(digits)
        key, equals, value = content[at + len(digits) + 1 : at + size].partition(b"=")
        if not equals or value[-1:] != b"\n" or at + size > len(content):
            raise ArchiveError("the tar stream is damaged: a header with records that are none")
        found[key.decode(errors="replace")] = value[:-1]
        at += size
    return found
