"""A saved machine's stream, taken apart: the pages of its memory, and all else.

QEMU's stream begins with the memory: records of a page each, in sections.  Who goes on from a machine has its memory as
a file; so the pages are put there, and the stream is left without them.  Pages that are zero become holes.

Source: QEMU, docs/devel/migration, and migration/ram.c for the records.  What is not expected ends it all.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_MAGIC = b"QEVM" + (3).to_bytes(4, "big")
_START, _PART, _END, _COMMAND, _FOOTER = 1, 2, 3, 8, 0x7E
"""Types of sections, what QEMU 10 says between them (that no more than the rest follows), and what is behind each."""
_RAM = b"\x03ram" + (0).to_bytes(4, "big") + (4).to_bytes(4, "big")
"""Name, instance and version of the section that is the memory."""
_SEARCHED = 4096
"""Bytes at the stream's beginning in which it begins."""
_ZERO, _SIZES, _PAGE, _OVER, _SAME = 0x02, 0x04, 0x08, 0x10, 0x20
"""Flags of a record: a page of zeros, the sizes of all blocks, a page, the section's end; the same block as before."""
_PAGE_SIZE = 4096
_FLAGS = _PAGE_SIZE - 1
_AT_ONCE = 256
"""Pages that are written together; one call takes 1024 at most."""
_MOST_WRITTEN = 1 << 20
_WORD = struct.Struct(">Q")
_COMMAND_HEAD = struct.Struct(">BHH")
"""Type, number, and the size of what follows."""


class StreamError(Exception):
    """A stream is not as it is expected to be."""


def split(stream: Path, memory: Path, state: Path, size: int) -> None:
    """Put the pages of the block of `size` bytes into the new file `memory`, and all else of `stream` into `state`.

    Raises `StreamError`, `OSError`.
    """
    with stream.open("rb") as source, memory.open("xb") as pages, state.open("xb") as rest:
        os.ftruncate(pages.fileno(), size)
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                _Split(data, pages.fileno(), rest.fileno(), size).split()
            except (IndexError, struct.error):
                raise StreamError("it is cut short") from None
        os.fsync(pages.fileno())
        os.fsync(rest.fileno())


class _Split:
    def __init__(self, data: mmap.mmap, pages: int, rest: int, size: int) -> None:
        self._data = data
        self._pages = pages
        self._rest = rest
        self._size = size
        self._main = b""
        """The name of the block whose pages are put aside."""
        self._block = b""
        """The name of the block that the last record was of."""
        self._done = 0
        """Up to where the stream is written, or put aside."""
        self._written = bytearray(size // _PAGE_SIZE)
        """Which pages have been put aside."""

    def split(self) -> None:
        """Put the pages aside, and write all else."""
        data = self._data
        at = data.find(_RAM, 0, _SEARCHED)
        if data[: len(_MAGIC)] != _MAGIC or at < len(_MAGIC) + 5 or data[at - 5] != _START:
            raise StreamError("it does not begin with the memory")
        section, kind = data[at - 4 : at], _START
        at += len(_RAM)
        while True:
            at = self._section(at)
            if data[at] != _FOOTER or data[at + 1 : at + 5] != section:
                raise StreamError("a section does not end where it should")
            at += 5
            if kind == _END:
                break
            while data[at] == _COMMAND:
                at += _COMMAND_HEAD.size + _COMMAND_HEAD.unpack_from(data, at)[2]
            kind = data[at]
            if kind not in {_PART, _END} or data[at + 1 : at + 5] != section:
                raise StreamError("the memory does not end")
            at += 5
        self._keep(len(data))

    def _section(self, at: int) -> int:
        """Go through the records of a section, from `at` on; return where it ends."""
        data = self._data
        while True:
            (head,) = _WORD.unpack_from(data, at)
            kind = head & _FLAGS & ~_SAME
            if kind == _OVER:
                return at + 8
            if kind == _SIZES:
                at = self._sizes(at + 8, head & ~_FLAGS)
                continue
            if kind not in {_PAGE, _ZERO}:
                raise StreamError(f"it has a record of the kind {kind:#x}")
            body = at + 8
            if not head & _SAME:
                self._block = data[body + 1 : body + 1 + data[body]]
                body += 1 + len(self._block)
            end = body + (_PAGE_SIZE if kind == _PAGE else 1)
            if self._block == self._main:
                self._keep(at)
                if kind == _PAGE:
                    self._put(head & ~_FLAGS, [data[body:end]])
                else:
                    self._clear(head & ~_FLAGS)
                end = self._done = self._run(end)
            at = end

    def _run(self, at: int) -> int:
        """Put aside the pages from `at` on that are of the same block; return where they end."""
        data, word, page, zero = self._data, _WORD.unpack_from, _PAGE | _SAME, _ZERO | _SAME
        first, found = 0, list[bytes]()
        while True:
            (head,) = word(data, at)
            flags = head & _FLAGS
            if flags == page:
                place = head - page
                if place != first + len(found) * _PAGE_SIZE or len(found) == _AT_ONCE:
                    self._put(first, found)
                    first, found = place, []
                found.append(data[at + 8 : at + 8 + _PAGE_SIZE])
                at += 8 + _PAGE_SIZE
            elif flags == zero:
                if found:
                    self._put(first, found)
                    found = []
                self._clear(head - zero)
                at += 9
            else:
                self._put(first, found)
                return at

    def _put(self, place: int, found: list[bytes]) -> None:
        if found:
            count = len(found)
            if place + count * _PAGE_SIZE > self._size or place % _PAGE_SIZE:
                raise StreamError("it has a page that is beyond the memory")
            if os.pwritev(self._pages, found, place) != count * _PAGE_SIZE:
                raise StreamError("the memory could not be written")
            self._written[place // _PAGE_SIZE : place // _PAGE_SIZE + count] = b"\1" * count

    def _clear(self, place: int) -> None:
        if self._written[place // _PAGE_SIZE]:
            self._put(place, [bytes(_PAGE_SIZE)])

    def _sizes(self, at: int, left: int) -> int:
        """Find the block that is put aside in the list of all blocks, which have `left` bytes together."""
        while left > 0:
            end = at + 1 + self._data[at]
            (size,) = _WORD.unpack_from(self._data, end)
            if size == self._size:
                self._main = self._data[at + 1 : end]
            at, left = end + 8, left - size
        if left or not self._main:
            raise StreamError("it is of a machine with another memory")
        return at

    def _keep(self, end: int) -> None:
        """Write what there is up to `end`."""
        while self._done < end:
            self._done += os.write(self._rest, self._data[self._done : min(end, self._done + _MOST_WRITTEN)])
