"""The members of a tar archive, read by position from an open file.

Only headers are read; contents stay where they are.

`tarfile` of the standard library is 3 to 15 times slower and keeps every member; this one also expands all four ways to
store sparse files, and refuses what it does not know instead of guessing.  Global PAX headers are skipped, as container
runtimes do.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shed.errors import DataError
from shed.oci.content import FileSlice, SparseContent
from shed.oci.pax import MAX_SEGMENTS, Pax, pairs, parse_pax
from shed.oci.tarheader import BLOCK, ZERO_BLOCK, Header, first_text, gnu_sparse_head, gnu_sparse_more, parse_header

MAX_EXTENDED = 1 << 20
"""Most bytes of the extended headers and long names of one member, all together; of a global header too."""
MAX_HEADERS = 64
"""Most headers that stand before one member: two or three are usual."""
MAX_SPARSE_MAP = 32 << 20
"""Most bytes of a sparse map that stands before its data."""
MAX_FILE = 1 << 40
"""Most bytes of one file, holes included."""
_MAX_ID = (1 << 32) - 1
"""Largest user or group number of 32 bits: it means "none" to Linux, and "leave it as it is" to `chown`."""
_MAX_SECONDS = 1 << 62
_MAX_NUMBERS = 4096
_MAX_LINE = 20
"""Most digits of a number in a sparse map."""
_TYPES = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}


@dataclass(slots=True, eq=False)
class Member:
    """One entry of an archive, as it stands there: `name` is not cleaned."""

    name: bytes
    mode: int
    """Type and permission bits; 0 for a hardlink."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    major: int = 0
    minor: int = 0
    size: int = 0
    target: bytes = b""
    """Of a symlink or a hardlink."""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    content: FileSlice | SparseContent | None = None
    """Of a regular file that is not empty."""

    @property
    def is_hardlink(self) -> bool:
        """Tell whether this is another name of an earlier member."""
        return self.mode == 0


class Counts(Protocol):
    """What is asked before a member is kept: `shed.oci.unpack_limits.Part`."""

    def member(self, weight: int) -> None:
        """Take a file and `weight` bytes of memory for it.  Raises `DataError`."""
        ...


def read_tar(source: FileSlice, counts: Counts) -> Iterator[Member]:
    """Yield the members of the archive in `source`, in its order; each is counted first.

    Raises `DataError`: what is wrong with the archive and at which byte, or what `counts` says.
    """
    reader = _Reader(source)
    while True:
        try:
            member = reader.next_member()
        except DataError as error:
            raise DataError(f"{error.message} (at byte {reader.position} of the archive)", hint=error.hint) from None
        if member is None:
            return
        counts.member(_weight(member))
        yield member


_NO_PAX = Pax()
"""What most members have; never changed."""


class _Reader:
    """Walks the headers; `position` is where the header being read starts."""

    def __init__(self, source: FileSlice) -> None:
        self.source = source
        self.position = 0
        self._numbers: dict[int, int] = {}
        """Modes and owners, each kept once: a layer has few different ones, and a million times the same."""

    def next_member(self) -> Member | None:
        pax = _NO_PAX
        long_name: bytes | None = None
        long_link: bytes | None = None
        pending = False
        extended = headers = 0
        while True:
            block = self.source.pread(BLOCK, self.position)
            if len(block) < BLOCK or block == ZERO_BLOCK:
                self._check_end(block, pending=pending)
                return None
            header = parse_header(block)
            data = self.position + BLOCK
            if header.type in b"xXLKg":
                content = self._extended(header, data)
                extended, headers = extended + len(content), headers + 1
                if extended > MAX_EXTENDED or headers > MAX_HEADERS:
                    raise DataError(
                        f"a member has {headers} extended headers of {extended} bytes, {MAX_HEADERS} of "
                        f"{MAX_EXTENDED} are allowed"
                    )
                pending = pending or header.type != b"g"
                if header.type in b"xX":
                    pax = Pax() if pax is _NO_PAX else pax
                    parse_pax(content, pax)
                elif header.type == b"L":
                    long_name = first_text(content)
                elif header.type == b"K":
                    long_link = first_text(content)
            elif header.type == b"V":  # a GNU volume label, without data
                header.size = 0
            else:
                name = long_name if pax.path is None else pax.path
                link = long_link if pax.linkpath is None else pax.linkpath
                header.name = header.name if name is None else name
                header.linkname = header.linkname if link is None else link
                return self._member(header, pax, block, data)
            self._advance(data, header.size)

    def _check_end(self, block: bytes, *, pending: bool) -> None:
        if pending or 0 < len(block) < BLOCK:
            raise DataError("the archive is cut short")
        following = self.source.pread(BLOCK, self.position + BLOCK) if block else b""
        if following not in (b"", ZERO_BLOCK):
            raise DataError("the archive goes on after a single zero block")

    def _extended(self, header: Header, data: int) -> bytes:
        if not 0 <= header.size <= MAX_EXTENDED:
            raise DataError(f"an extended header claims {header.size} bytes, at most {MAX_EXTENDED} are allowed")
        content = self.source.pread(header.size, data)
        if len(content) < header.size:
            raise DataError("the archive is cut short")
        return content

    def _advance(self, data: int, size: int) -> None:
        self.position = data + (size + BLOCK - 1) // BLOCK * BLOCK

    def _member(self, header: Header, pax: Pax, block: bytes, data: int) -> Member:
        kind = header.type
        if kind == b"\0" and header.name.endswith(b"/"):  # v7 had no type for folders
            kind = b"5"
        if kind not in _TYPES and kind != b"1":
            raise DataError(f"tar member {_show(header.name)} has the unknown type {kind!r}")
        seconds, nanoseconds = (header.mtime, 0) if pax.mtime is None else pax.mtime
        member = Member(
            name=header.name,
            mode=self._once(_mode(header.mode, kind)),
            uid=self._once(_owner(header.uid if pax.uid is None else pax.uid)),
            gid=self._once(_owner(header.gid if pax.gid is None else pax.gid)),
            mtime=seconds,
            mtime_ns=nanoseconds,
            major=header.major,
            minor=header.minor,
            target=header.linkname if kind in b"12" else b"",
            xattrs=pax.xattrs,
        )
        _check(member)
        stored = header.size if pax.size is None else pax.size
        if not stat.S_ISREG(member.mode):  # others carry no data, whatever their size field says
            stored = 0
        elif stored < 0 or stored > self.source.size - data:
            raise DataError(
                f"tar member {_show(member.name)} claims {stored} bytes, the archive has "
                f"{max(0, self.source.size - data)} more"
            )
        if kind == b"S":
            data = self._old_sparse(member, block, data, stored)
        elif pax.sparse_version == (1, 0):
            self._mapped_sparse(member, data, stored, pax.sparse_size)
        elif pax.sparse_map is not None:
            self._set_sparse(member, self.source.slice(data, stored), pax.sparse_map, pax.sparse_size)
        elif pax.sparse_version not in (None, (0, 0), (0, 1)):
            raise DataError(f"tar member {_show(member.name)} is sparse in the unknown version {pax.sparse_version}")
        elif stored:
            member.size = stored
            member.content = self.source.slice(data, stored)
        self._advance(data, stored)
        return member

    def _once(self, number: int) -> int:
        """Return the number that is kept for `number`."""
        if len(self._numbers) > _MAX_NUMBERS:
            self._numbers.clear()
        return self._numbers.setdefault(number, number)

    def _old_sparse(self, member: Member, block: bytes, data: int, stored: int) -> int:
        """Set the content of a GNU sparse member (type ``S``).

        Return where its data starts: behind the rest of the map.
        """
        segments, more, real_size = gnu_sparse_head(block)
        while more:
            block = self.source.pread(BLOCK, data)
            if len(block) < BLOCK or len(segments) > MAX_SEGMENTS:
                raise DataError(f"tar member {_show(member.name)} has a broken sparse map")
            following, more = gnu_sparse_more(block)
            segments += following
            data += BLOCK
        self._set_sparse(member, self.source.slice(data, stored), segments, real_size)
        return data

    def _mapped_sparse(self, member: Member, data: int, stored: int, real_size: int | None) -> None:
        """Set the content of a PAX sparse member of version 1.0: the map in decimal lines, padding, the data."""
        numbers: list[int] = []
        wanted = 1
        text = b""
        used = 0
        while len(numbers) < wanted:
            line, newline, rest = text.partition(b"\n")
            if newline:
                if not line.isdigit() or len(line) > _MAX_LINE:
                    raise DataError(f"tar member {_show(member.name)} has a broken sparse map")
                numbers.append(int(line))
                text = rest
                if len(numbers) == 1:
                    wanted = 1 + 2 * numbers[0]
            elif used >= min(stored, MAX_SPARSE_MAP) or wanted > 2 * MAX_SEGMENTS + 1 or len(text) > _MAX_LINE:
                raise DataError(f"tar member {_show(member.name)} has a broken sparse map")
            else:
                text += self.source.pread(BLOCK, data + used)
                used += BLOCK
        self._set_sparse(member, self.source.slice(data + used, stored - used), pairs(numbers[1:]), real_size)

    def _set_sparse(
        self, member: Member, packed: FileSlice, segments: list[tuple[int, int]], real_size: int | None
    ) -> None:
        end = 0
        for offset, length in segments:
            if offset < end:
                raise DataError(f"tar member {_show(member.name)} has a sparse map that is out of order")
            end = offset + length
        size = end if real_size is None else real_size
        if end > size or size > MAX_FILE or sum(length for _, length in segments) != packed.size:
            raise DataError(f"tar member {_show(member.name)} has a sparse map that does not fit its size")
        member.size = size
        member.content = SparseContent(packed, segments, size) if size else None


def _mode(mode: int, kind: bytes) -> int:
    """Return type and permission bits: 0 for a hardlink, and for a symlink those that Linux gives to all of them."""
    if kind == b"1":
        return 0
    return _TYPES[kind] | (0o777 if kind == b"2" else mode)


def _owner(number: int) -> int:
    """Return the owner that container runtimes give to a file whose header says `number`.

    They pass it to `chown`: a negative number is one of 32 bits (NFS and macOS have -2), and -1 leaves a file with who
    unpacks it, which is root.
    """
    if -(1 << 31) <= number < 0:
        number += 1 << 32
    return 0 if number == _MAX_ID else number


def _check(member: Member) -> None:
    if not 0 <= member.uid < _MAX_ID or not 0 <= member.gid < _MAX_ID:
        raise DataError(f"tar member {_show(member.name)} has an impossible owner, {member.uid}:{member.gid}")
    if b"\0" in member.name or b"\0" in member.target:
        raise DataError(f"tar member {_show(member.name)} has a NUL in its name")
    if not -_MAX_SECONDS < member.mtime < _MAX_SECONDS:
        raise DataError(f"tar member {_show(member.name)} has an impossible time, {member.mtime}")
    if not 0 <= member.major < 1 << 12 or not 0 <= member.minor < 1 << 20:
        raise DataError(
            f"tar member {_show(member.name)} has an impossible device number, {member.major}:{member.minor}"
        )


def _weight(member: Member) -> int:
    """Return about how many bytes of memory the member takes."""
    segments = len(member.content.segments) if isinstance(member.content, SparseContent) else 0
    xattrs = 100 + sum(len(name) + len(value) + 120 for name, value in member.xattrs.items()) if member.xattrs else 0
    return 320 + len(member.name) + len(member.target) + xattrs + 200 * segments


def _show(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))[:200]
