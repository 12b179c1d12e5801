"""The tar of `shed cp`: what `tarfile` makes of it, and what it makes of `tarfile`'s."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
from collections.abc import Iterator

import pytest

from shed.guest import tar

NAMES = ("a", "d/" + "n" * 97, "d/" + "n" * 300, "ä", "odd\udcff\nname", "x" * 100, "x" * 101)
TIMES = (0, 1_700_000_000_000_000_000, 1_700_000_000_123_456_789, -1, -5_500_000_000, (1 << 34) * 1_000_000_000)


def members() -> Iterator[tar.Member]:
    """Members of all kinds, with what fits into a header and what does not."""
    for name in NAMES:
        for kind in (tar.FILE, tar.FOLDER, tar.LINK, tar.HARD_LINK):
            member = tar.Member(name, kind)
            member.mode, member.link = 0o4751, NAMES[-1] if kind in (tar.LINK, tar.HARD_LINK) else ""
            yield member
    for time in TIMES:
        member = tar.Member("t", tar.FILE)
        member.mtime = time
        yield member
    for number in (0, 0o7777777, 0o10000000, 4294967295):
        member = tar.Member("o", tar.FILE)
        member.uid, member.gid = number, number // 2
        yield member


def told(member: tar.Member) -> tuple[object, ...]:
    """All that a member says."""
    return tuple(getattr(member, name) for name in sorted(tar.Member.__slots__))


def read(stream: bytes, *, step: int = 1 << 20) -> list[tuple[tar.Member, bytes]]:
    """Return members and contents of a stream that comes in pieces of at most `step` bytes."""
    source = io.BytesIO(stream)
    reader = tar.Reader(lambda buffer: source.readinto(buffer[:step]))
    found = []
    while (member := reader.next()) is not None:
        found.append((member, b"".join(map(bytes, reader.content()))))
    reader.finish()
    assert not source.read()
    return found


def test_what_is_written_is_read() -> None:
    """Every member of its own kind, size, owner and time."""
    stream = b"".join(map(tar.header, members()))
    assert [told(member) for member, _ in read(stream + tar.end(len(stream)))] == list(map(told, members()))


def test_tarfile_reads_what_is_written() -> None:
    """An agent of an older version does; so do other programs."""
    stream = b"".join(map(tar.header, members()))
    with tarfile.open(fileobj=io.BytesIO(stream + tar.end(len(stream)))) as archive:
        for ours, theirs in zip(members(), archive.getmembers(), strict=True):
            assert (theirs.name, theirs.type, theirs.mode, theirs.linkname, theirs.uid, theirs.gid) == (
                ours.name, ours.kind, ours.mode, ours.link, ours.uid, ours.gid,
            )  # fmt: skip
            assert theirs.mtime == pytest.approx(ours.mtime / 1e9, abs=1e-6)


@pytest.mark.parametrize("step", [1, 511, 70_000, 1 << 20])
def test_what_an_older_version_wrote_is_read(step: int) -> None:
    """It was `tarfile`, with pax records; contents of all lengths, in pieces of all lengths."""
    chance = random.Random(step)
    contents = [chance.randbytes(size) for size in (0, 1, 511, 512, 513, 70_000 if step == 1 else 1_500_000, 3)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for number, content in enumerate(contents):
            entry = tarfile.TarInfo(NAMES[number % len(NAMES)])
            entry.size, entry.mtime, entry.uid = len(content), 1_600_000_000.25, 5_000_000
            archive.addfile(entry, io.BytesIO(content))
    found = read(out.getvalue(), step=step)
    assert [content for _, content in found] == contents
    assert [member.name for member, _ in found] == [NAMES[number % len(NAMES)] for number in range(len(contents))]
    assert {(member.mtime, member.uid) for member, _ in found} == {(1_600_000_000_250_000_000, 5_000_000)}


def test_what_was_not_read_is_passed_over() -> None:
    """The next member begins behind the content, also when nobody has looked at it, or at some of it."""
    member = tar.Member("a", tar.FILE)
    member.size = 600_000
    stream = (tar.header(member) + tar.padded(bytes(600_000))) * 3
    source = io.BytesIO(stream + tar.end(len(stream)))
    reader = tar.Reader(source.readinto)
    for count in range(3):
        assert reader.next() is not None
        for _ in range(count):
            next(reader.content())
    assert reader.next() is None


@pytest.mark.parametrize("seed", range(200))
def test_damage_is_an_error_or_harmless(seed: int) -> None:
    """No stream of bytes leads to anything but members and `ArchiveError`, and none of what is held is endless."""
    chance = random.Random(seed)
    stream = bytearray(b"".join(map(tar.header, members())))
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(stream))
        if chance.random() < 0.3:
            del stream[at : at + chance.randrange(2000)]
        else:
            stream[at] = chance.randrange(256)
    with contextlib.suppress(tar.ArchiveError):
        read(bytes(stream) + tar.end(len(stream)), step=chance.choice([7, 512, 1 << 20]))
