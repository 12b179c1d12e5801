"""What an image is read from: archives, and pieces of open files.

They are read by position, so that several threads can share them.
"""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol


class Source(Protocol):
    """Bytes of a known size, read by position."""

    size: int

    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` bytes at `offset`; fewer only at the end."""
        ...


class FileSlice:
    """`size` bytes from `start` of the open file `fd`, which somebody else keeps open."""

    __slots__ = ("fd", "size", "start")

    def __init__(self, fd: int, start: int, size: int) -> None:
        self.fd = fd
        self.start = start
        self.size = size

    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` bytes at `offset` of the slice; fewer only at its end, or when the file was cut."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        data = os.pread(self.fd, length, self.start + offset)
        while len(data) < length:
            more = os.pread(self.fd, length - len(data), self.start + offset + len(data))
            if not more:
                break
            data += more
        return data

    def slice(self, start: int, size: int) -> FileSlice:
        """Return the part of `size` bytes from `start`."""
        return FileSlice(self.fd, self.start + start, size)


class Archive(Protocol):
    """An image, or several, to read from."""

    name: str
    """For messages."""

    def file(self, path: str) -> FileSlice | None:
        """Return the file at `path`, as in ``index.json``, or None when there is none.

        Raises `DataError` when it is no regular file.
        """
        ...


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` bytes at `offset`; fewer only at the end."""
        return self._data[offset : offset + length]


class SparseContent:
    """A file of `size` bytes that is zero except for `segments`.

    Each segment is (offset in the file, length); they are stored one after another in `packed`.
    """

    __slots__ = ("_packed", "_places", "_starts", "segments", "size")

    def __init__(self, packed: FileSlice, segments: Sequence[tuple[int, int]], size: int) -> None:
        self.size = size
        self.segments = [segment for segment in segments if segment[1]]
        self._packed = packed
        self._starts = [start for start, _ in self.segments]
        self._places = [0, *itertools.accumulate(length for _, length in self.segments)]

    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` bytes at `offset`; fewer only at the end."""
        end = min(offset + length, self.size)
        result = bytearray(max(0, end - offset))
        for number in range(max(0, bisect_right(self._starts, offset) - 1), len(self.segments)):
            start, held = self.segments[number]
            if start >= end:
                break
            first, last = max(offset, start), min(end, start + held)
            if first < last:
                data = self._packed.pread(last - first, self._places[number] + first - start)
                result[first - offset : first - offset + len(data)] = data
        return bytes(result)
