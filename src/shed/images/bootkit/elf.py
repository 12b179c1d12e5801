"""As much of the ELF format as checking a kernel, a module and a library needs.

Format: elf(5), 64-bit little-endian only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from shed.errors import DataError

_PT_DYNAMIC, _PT_NOTE = 2, 4
_DT_NEEDED, _DT_STRTAB = 1, 5
_SHT_NOBITS = 8
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


class Elf:
    """One ELF file held in memory.  Raises `DataError` when `data` is not a 64-bit little-endian ELF file.

    `name` is for messages.
    """

    def __init__(self, data: bytes, name: str) -> None:
        if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64:
            raise DataError(f"{name} is not a 64-bit little-endian ELF file")
        self.name = name
        self._data = data
        (self._segments_at, self._sections_at) = struct.unpack_from("<QQ", data, 32)
        (self._segment_count, _, self._section_count, self._names_index) = struct.unpack_from("<4H", data, 56)

    def notes(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield (owner, type, description) of every note."""
        for segment in self._segments():
            if segment.kind != _PT_NOTE:
                continue
            at, end = segment.offset, segment.offset + segment.size
            while at + 12 <= end:
                name_size, size, kind = self._unpack("<III", at)
                start = at + 12 + (name_size + 3) // 4 * 4
                yield self._data[at + 12 : at + 12 + name_size].rstrip(b"\0"), kind, self._data[start : start + size]
                at = start + (size + 3) // 4 * 4

    def section(self, name: bytes) -> bytes | None:
        """Return the bytes of the section `name`, or None."""
        if not self._section_count:
            return None
        names = self._section_header(self._names_index)[4]
        for index in range(self._section_count):
            name_at, kind, _, _, offset, size, *_ = self._section_header(index)
            if kind != _SHT_NOBITS and self._text(names + name_at) == name:
                return self._data[offset : offset + size]
        return None

    def needed(self) -> list[str]:
        """Return the libraries that the dynamic section asks for."""
        segments = list(self._segments())
        found: list[int] = []
        strings = None
        for dynamic in (segment for segment in segments if segment.kind == _PT_DYNAMIC):
            for at in range(dynamic.offset, dynamic.offset + dynamic.size, 16):
                tag, value = self._unpack("<qQ", at)
                if tag == _DT_NEEDED:
                    found.append(value)
                elif tag == _DT_STRTAB:
                    strings = next(
                        s.offset + value - s.address
                        for s in segments
                        if s.kind == 1 and 0 <= value - s.address < s.size
                    )
        return [self._text(strings + offset).decode() for offset in found] if strings is not None else []

    def _segments(self) -> Iterator[_Segment]:
        for index in range(self._segment_count):
            kind, _, offset, address, _, size, _, _ = self._unpack(
                _SEGMENT.format, self._segments_at + index * _SEGMENT.size
            )
            yield _Segment(kind, offset, address, size)

    def _section_header(self, index: int) -> tuple[int, ...]:
        return self._unpack(_SECTION.format, self._sections_at + index * _SECTION.size)

    def _text(self, at: int) -> bytes:
        end = self._data.find(b"\0", at)
        return self._data[at:end]

    def _unpack(self, layout: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(layout, self._data, at)
        except struct.error:
            raise DataError(f"{self.name} is cut short") from None
