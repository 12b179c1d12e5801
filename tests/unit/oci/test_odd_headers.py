"""Headers of the wild: a field that is odd costs no file and moves none, and other programs read the same."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile

import pytest

from shed.errors import DataError
from shed.oci.tarheader import parse_number
from support.layers import layers_of_the_wild as wild
from support.layers.layer_set import LayerSet
from support.layers.raw_headers import END, GNU, raw
from support.layers.tars import members


def names(layers: LayerSet) -> list[str]:
    """Return what the only layer lists, in its order, as we read it."""
    return [member.name.decode().rstrip("/") for member in members(layers.layers[0])]


def in_gnu_tar(layers: LayerSet) -> list[str]:
    """Return what GNU tar lists."""
    listed = subprocess.run(["tar", "-tf", "-"], input=layers.layers[0], capture_output=True, check=True)
    return [line.rstrip("/") for line in listed.stdout.decode().splitlines()]


def in_python(layers: LayerSet) -> list[tarfile.TarInfo]:
    """Return what `tarfile` lists."""
    with tarfile.open(fileobj=io.BytesIO(layers.layers[0])) as archive:
        return archive.getmembers()


@pytest.mark.parametrize("version", [b"00", b"\0\0", b"  ", b" \0", b"\0 ", b"99"])
def test_the_version_of_ustar_does_not_matter(version: bytes) -> None:
    """A name in two parts is read under each, whatever its program left in the field."""
    archive = raw(b"name", b"1", prefix=b"very/long/dir", magic=b"ustar\0" + version) + END
    assert [member.name for member in members(archive)] == [b"very/long/dir/name"]


def test_other_formats_have_no_prefix() -> None:
    """What stands in its place under no magic, and under GNU's if it is a time, is no name."""
    times = b"00000000120\x0000000000121\0"
    for magic, prefix in ((bytes(8), b"dir"), (GNU, times), (GNU, b"\xff" * 24), (GNU, b"d\xc3\xa9p\xc3\xb4t")):
        assert [member.name for member in members(raw(b"name", b"1", prefix=prefix, magic=magic) + END)] == [b"name"]


def test_star_keeps_times_behind_its_prefix() -> None:
    """Under STAR's trailer a prefix has 131 bytes at most; without it, 155."""
    full = raw(b"name", prefix=b"p" * 131 + b"00000000120\x00", trailer=b"tar\0")
    assert [member.name for member in members(full + END)] == [b"p" * 131 + b"/name"]
    longest = raw(b"name", prefix=b"p" * 155)
    assert [member.name for member in members(longest + END)] == [b"p" * 155 + b"/name"]


@pytest.mark.parametrize("made", [wild.versions_of_ustar, wild.rubbish_behind_nul, wild.modes_of_symlinks])
def test_gnu_tar_and_python_list_the_same(made: object) -> None:
    """Name for name, and owner and mode for owner and mode where they are plain."""
    layers = made()  # type: ignore[operator]
    assert names(layers) == in_gnu_tar(layers) == [info.name.rstrip("/") or "." for info in in_python(layers)]


def test_python_reads_the_same_numbers_before_rubbish() -> None:
    """Mode, owner and time end at their NUL."""
    layers = wild.rubbish_behind_nul()
    ours = [(m.mode & 0o7777, m.uid, m.gid, m.mtime, m.target) for m in members(layers.layers[0])]
    theirs = [(i.mode, i.uid, i.gid, int(i.mtime), i.linkname.encode()) for i in in_python(layers)]
    assert ours == theirs
    assert (0o755, 7, 8, 80, b"") in ours


def test_owners_are_what_chown_makes_of_them() -> None:
    """-2 is the number of 32 bits that has its bits, and -1 leaves a file with root."""
    found = {m.name: (m.uid, m.gid) for m in members(wild.owners().layers[0])}
    minus_two = (1 << 32) - 2
    assert found[b"d/two"] == (minus_two, minus_two)
    assert found[b"d/pax"] == (minus_two, 0)
    assert found[b"d/one"] == found[b"d/largest"] == found[b"d/all/"] == (0, 0)


def test_symlinks_have_the_mode_of_linux() -> None:
    """0777, whatever the header says."""
    links = [m for m in members(wild.modes_of_symlinks().layers[0]) if stat.S_ISLNK(m.mode)]
    assert [stat.S_IMODE(link.mode) for link in links] == [0o777] * 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"755\0junk", 0o755),
        (b"755 \0 99", 0o755),
        (b"\x000000755", 0o755),
        (b" 755\0\xff\xff\xff", 0o755),
        (b"0\0000000", 0),
    ],
)
def test_numbers_end_at_their_nul(field: bytes, value: int) -> None:
    """What stands behind it was in the writer's memory; before it, one NUL may stand, as an old program left it."""
    assert parse_number(field) == value


@pytest.mark.parametrize("field", [b"75x\0", b"7 5\0", b"755 junk", b"8\0", b"\0junk"])
def test_rubbish_before_the_nul_is_still_refused(field: bytes) -> None:
    """Digits that are none are damage."""
    with pytest.raises(DataError, match="bad number"):
        parse_number(field)
