"""Tar headers written byte by byte, as programs of the wild write them and `tarfile` does not."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR, GNU = b"ustar\x0000", b"ustar  \0"
_PLACES = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "kind": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "prefix": (345, 155),
    "trailer": (508, 4),
}


def raw(name: bytes, data: bytes = b"", **fields: bytes) -> bytes:
    """Return one member with its data; `fields` are bytes as they shall stand in the header, the rest is usual."""
    usual = {"mode": b"0000644\0", "uid": b"0000000\0", "gid": b"0000000\0", "mtime": b"00000000120\0", "kind": b"0"}
    usual |= {"size": b"%011o\0" % len(data), "magic": USTAR}
    block = bytearray(BLOCK)
    for field, value in {"name": name, **usual, **fields}.items():
        start, width = _PLACES[field]
        assert len(value) <= width, field
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % BLOCK)
