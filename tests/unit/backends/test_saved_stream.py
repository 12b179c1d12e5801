"""A saved machine's stream, taken apart."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from shed.backends.qemu.stream import StreamError, split

PAGE = 4096
SIZE = 64 * PAGE
ZERO, SIZES, DATA, OVER, SAME = 0x02, 0x04, 0x08, 0x10, 0x20
FRONT = b"QEVM\0\0\0\3" + b"\x07\0\0\0\x07pc-q35-"
SECTION = (2).to_bytes(4, "big")
BEHIND = b"\x04" + b"all that is behind the memory" * 300


def word(value: int) -> bytes:
    return struct.pack(">Q", value)


def begin(*records: bytes, size: int = SIZE, name: bytes = b"pc.ram") -> bytes:
    """Return the first section, with the sizes of the blocks."""
    blocks = [(b"vga.rom", 2 * PAGE), (name, size)]
    sizes = b"".join(bytes([len(block)]) + block + word(length) for block, length in blocks)
    start = b"\x01" + SECTION + b"\x03ram\0\0\0\0\0\0\0\4"
    return FRONT + start + word(sum(length for _, length in blocks) | SIZES) + sizes + ended(*records)


def ended(*records: bytes) -> bytes:
    return b"".join(records) + word(OVER) + b"\x7e" + SECTION


def section(kind: int, *records: bytes) -> bytes:
    return bytes([kind]) + SECTION + ended(*records)


def page(number: int, fill: bytes | None, name: bytes = b"") -> bytes:
    """Return the record of a page; without a name it is of the same block."""
    flags = (ZERO if fill is None else DATA) | (0 if name else SAME)
    front = word(number * PAGE | flags) + (bytes([len(name)]) + name if name else b"")
    return front + (b"\0" if fill is None else fill * PAGE)


def taken_apart(tmp_path: Path, stream: bytes, size: int = SIZE) -> tuple[bytes, bytes]:
    """Return the memory and the rest of a stream."""
    for name in ("memory", "state"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "stream").write_bytes(stream)
    split(tmp_path / "stream", tmp_path / "memory", tmp_path / "state", size)
    return (tmp_path / "memory").read_bytes(), (tmp_path / "state").read_bytes()


def test_pages_are_put_aside(tmp_path: Path) -> None:
    """At their places; the last word about one counts; what is not memory stays, byte by byte."""
    kept = page(1, b"r", b"vga.rom") + page(0, None)
    memory, state = taken_apart(
        tmp_path,
        begin()
        + section(2, page(0, b"a", b"pc.ram"), page(1, b"b"), page(2, None), page(9, b"c"), kept)
        + section(2, page(1, None, b"pc.ram"), page(9, b"d"), page(10, b"e"))
        + section(3)
        + BEHIND,
    )
    expected = bytearray(SIZE)
    for number, fill in ((0, b"a"), (9, b"d"), (10, b"e")):
        expected[number * PAGE : (number + 1) * PAGE] = fill * PAGE
    assert memory == bytes(expected)
    assert state == begin() + section(2, kept) + section(2) + section(3) + BEHIND


@pytest.mark.parametrize("command", [bytes.fromhex("08 000c 0000"), bytes.fromhex("08 0007 0003") + b"abc"])
def test_what_qemu_10_says_between_sections_stays(tmp_path: Path, command: bytes) -> None:
    """It tells that no more than the rest follows, which earlier ones did not."""
    stream = begin() + section(2, page(0, b"a", b"pc.ram")) + command + section(3) + BEHIND
    memory, state = taken_apart(tmp_path, stream)
    assert memory.startswith(b"a" * PAGE)
    assert state == begin() + section(2) + command + section(3) + BEHIND


def test_much_memory_takes_what_it_has(tmp_path: Path) -> None:
    """Pages that are zero are holes, and long runs are written in several turns."""
    size = 4096 * PAGE
    records = [page(0, None, b"pc.ram"), *(page(number, None if number > 1000 else b"x") for number in range(1, 4096))]
    memory, _ = taken_apart(tmp_path, begin(size=size) + section(2, *records) + section(3) + BEHIND, size)
    assert memory[PAGE : 1001 * PAGE] == b"x" * 1000 * PAGE
    assert not memory[:PAGE].strip(b"\0")
    assert not memory[1001 * PAGE :].strip(b"\0")
    assert (tmp_path / "memory").stat().st_blocks * 512 < 1100 * PAGE


GOOD = begin() + section(2, page(0, b"a", b"pc.ram")) + section(3) + BEHIND


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"QEVM\0\0\0\4" + GOOD[8:],
        GOOD.replace(b"\x03ram", b"\x03rom"),
        GOOD[: len(FRONT) + 40],
        GOOD[: GOOD.index(b"a" * PAGE) + 100],
        GOOD.replace(b"\x7e", b"\x7d"),
        begin(size=SIZE + PAGE) + section(3) + BEHIND,
        begin() + section(2, page(64, b"a", b"pc.ram")) + section(3) + BEHIND,
        begin() + section(2, page(0, b"a", b"pc.ram"), word(0x48)) + section(3) + BEHIND,
        begin() + section(2, page(0, b"a", b"pc.ram")) + BEHIND,
    ],
)
def test_what_is_not_understood_ends_it(tmp_path: Path, stream: bytes) -> None:
    """Whatever is wrong with it."""
    with pytest.raises((StreamError, ValueError)):
        taken_apart(tmp_path, stream)
