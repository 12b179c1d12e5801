"""git's index: where it says that files are.  Pure.

git writes files to the paths that its index has, and believes them: `.git/hooks/post-checkout` is one like others for
`git restore .`.

Source: gitformat-index(5); read-cache.c of git.
"""

from __future__ import annotations

from collections.abc import Iterator

from shed.selfrun import fold, is_git

MAX_BYTES = 128 << 20
_HEADER, _STATUS, _END = 12, 40, b"\0"
_EXTENDED, _LONG = 0x4000, 0x0FFF
_HARMLESS = frozenset({b"TREE", b"REUC", b"UNTR", b"FSMN", b"sdir"})
"""Extensions that name no other file (`link`), and no other places in this one (`EOIE`, `IEOT`)."""
_ELSEWHERE = (b"//", b"/./", b"/../")


def allowed(data: bytes, hash_bytes: int) -> bool:
    """Tell whether all paths of an index are below its work tree, and not in a `.git`.

    `hash_bytes` is the length of an object's name.
    """
    try:
        paths = list(_paths(data, hash_bytes))
    except (ValueError, IndexError):
        return False
    text = (
        b"/" + b"/\n/".join(path.removesuffix(b"/") for path in paths) + b"/"
    )  # a folder of a sparse index ends with one
    if paths and any(words in text for words in _ELSEWHERE):
        return False
    suspect = (path for path in paths if b"git" in path.lower() or not path.isascii())
    return not any(is_git(fold(part)) for path in suspect for part in path.replace(b"\\", b"/").split(b"/"))


def _paths(data: bytes, hash_bytes: int) -> Iterator[bytes]:
    """Return what stands in an index, and that nothing else does.  Raises `ValueError`, `IndexError`."""
    version, count = int.from_bytes(data[4:8]), int.from_bytes(data[8:_HEADER])
    if data[:4] != b"DIRC" or version not in {2, 3, 4}:
        raise ValueError
    place, path = _HEADER, b""
    for _ in range(count):
        start, place = place, place + _STATUS + hash_bytes
        flags = data[place] << 8 | data[place + 1]
        place += 4 if flags & _EXTENDED else 2
        kept = b""
        if version == 4:
            strip, place = _varint(data, place)
            if strip > len(path):
                raise ValueError
            kept = path[: len(path) - strip]
        end = data.index(_END, place)
        path = kept + data[place:end]
        if flags & _LONG != min(len(path), _LONG):
            raise ValueError
        yield path
        place = end + 1 if version == 4 else start + (end - start + 8 & ~7)
    last = len(data) - hash_bytes
    while place < last:
        if data[place : place + 4] not in _HARMLESS:
            raise ValueError
        place += 8 + int.from_bytes(data[place + 4 : place + 8])
    if place != last:
        raise ValueError


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    byte = data[place]
    value = byte & 0x7F
    while byte & 0x80:
        place += 1
        byte = data[place]
        value = (value + 1 << 7) + (byte & 0x7F)
    return value, place + 1
