"""The tar reader against archives of GNU tar and of `tarfile`, and against bytes that nobody should believe."""

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shed.errors import DataError
from shed.oci.tarheader import parse_number
from shed.oci.tarstream import Member, read_tar
from shed.oci.unpack_limits import Unpacking
from support.layers.tars import Item, device, file, folder, hardlink, members, source, symlink, tar

BLOCK = 512


def content(member: Member) -> bytes:
    """Return all bytes of a regular file."""
    data = member.content.pread(member.size, 0) if member.content else b""
    assert len(data) == member.size
    return data


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    """Return the archive with bytes of its first header replaced and the checksum set right."""
    block = bytearray(data[:BLOCK])
    block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[BLOCK:]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_member(format: int) -> None:  # noqa: A002
    """Names, types, attributes and contents come out as they went in, in all three formats."""
    long = "d" * 60 + "/" + "n" * 95
    items = [
        folder("d/", uid=7, gid=8),
        file(long, b"x" * 1000, mode=0o4755, mtime=1234567890),
        symlink("s", "t"),
        hardlink("h", "d/"),
    ]
    items += [device("c", b"3", 10, 200), device("b", b"4", 8, 1), device("f", b"6"), file("empty")]
    found = members(tar(*items, format=format))
    assert [member.name.rstrip(b"/") for member in found] == [
        b"d",
        long.encode(),
        b"s",
        b"h",
        b"c",
        b"b",
        b"f",
        b"empty",
    ]
    kinds = [stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, 0, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFREG]
    assert [stat.S_IFMT(member.mode) for member in found] == kinds
    assert (found[0].uid, found[0].gid) == (7, 8)
    assert (content(found[1]), found[1].mode & 0o7777, found[1].mtime) == (b"x" * 1000, 0o4755, 1234567890)
    assert (found[2].target, found[3].target, found[3].is_hardlink) == (b"t", b"d/", True)
    assert (found[4].major, found[4].minor) == (10, 200)
    assert found[7].content is None


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_numbers(format: int) -> None:  # noqa: A002
    """GNU long names and base-256 numbers, and their PAX counterparts."""
    name, target = "n" * 1000, "t" * 2000
    (member,) = members(tar(symlink(name, target, uid=4_000_000_000, gid=3_000_000, mtime=-5), format=format))
    assert (member.name, member.target) == (name.encode(), target.encode())
    assert (member.uid, member.gid, member.mtime) == (4_000_000_000, 3_000_000, -5)


def test_pax_fields() -> None:
    """Fractions of seconds, raw and encoded xattrs; the raw ones win over libarchive's copies."""
    headers = {
        "mtime": "1700000000.123456789",
        "SCHILY.xattr.user.a": "value",
        "LIBARCHIVE.xattr.user.a": "b3RoZXI",
        "LIBARCHIVE.xattr.user.b%25": "AAH/",
        "comment": "ignored",
    }
    (member,) = members(tar(file("f", b"data", pax_headers=headers)))
    assert (member.mtime, member.mtime_ns) == (1700000000, 123456789)
    assert member.xattrs == {b"user.a": b"value", b"user.b%": b"\x00\x01\xff"}


def test_global_headers_and_labels_are_skipped() -> None:
    """A global PAX header does not change members, as in container runtimes."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "evil", "uid": "5"}
    ) as archive:
        archive.addfile(file("f", b"x")[0], io.BytesIO(b"x"))
    label = patched(tar(file("label")), 156, b"V")[:BLOCK]
    (member,) = members(label + out.getvalue())
    assert (member.name, member.uid) == (b"f", 0)


SPARSE_WAYS = [
    ["--format=gnu"],
    *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
]


def sparse_file(path: Path, pieces: list[tuple[int, bytes]], size: int) -> bytes:
    """Write a file with holes and return its content."""
    with path.open("wb") as out:
        for offset, data in pieces:
            out.seek(offset)
            out.write(data)
        out.truncate(size)
    return path.read_bytes()


@pytest.mark.parametrize("options", SPARSE_WAYS, ids=lambda options: options[-1])
@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, b"head")],
        [(1 << 20, b"x" * 5000)],
        [(number * 65536, bytes([number]) * 4096) for number in range(1, 60)],
        [(0, b"a" * 4096), (3 << 20, b"z" * 10)],
    ],
    ids=["hole", "head", "middle", "many", "ends"],
)
def test_sparse_files_are_expanded(tmp_path: Path, options: list[str], pieces: list[tuple[int, bytes]]) -> None:
    """All four ways in which GNU tar stores holes give the file back, and the member after it is found."""
    wanted = sparse_file(tmp_path / "sparse", pieces, 4 << 20)
    (tmp_path / "after").write_bytes(b"after")
    subprocess.run(
        ["tar", "-C", tmp_path, "--sparse", *options, "-cf", tmp_path / "t.tar", "sparse", "after"], check=True
    )
    found = members((tmp_path / "t.tar").read_bytes())
    assert [member.name for member in found] == [b"sparse", b"after"]
    assert content(found[0]) == wanted
    assert content(found[1]) == b"after"
    held = found[0].content
    assert held is not None
    for offset, length in ((0, 1), (65535, 3), ((1 << 20) - 1, 5002), ((4 << 20) - 1, 10), (4 << 20, 5)):
        assert held.pread(length, offset) == wanted[offset : offset + length]


def test_gnu_tar_keeps_xattrs(tmp_path: Path) -> None:
    """`user.*` attributes that GNU tar stored are found."""
    (tmp_path / "f").write_bytes(b"x")
    os.setxattr(tmp_path / "f", "user.shed", b"a\0b\nc")
    subprocess.run(["tar", "-C", tmp_path, "--xattrs", "-cf", tmp_path / "t.tar", "f"], check=True)
    (member,) = members((tmp_path / "t.tar").read_bytes())
    assert member.xattrs == {b"user.shed": b"a\0b\nc"}


def test_the_end_of_an_archive() -> None:
    """Two zero blocks, or the end of the file between members, end it; what follows two zero blocks does not matter."""
    data = tar(file("a", b"x"))
    assert len(members(data[: 2 * BLOCK])) == 1
    assert len(members(data[: 2 * BLOCK] + bytes(2 * BLOCK) + b"garbage")) == 1
    assert members(b"") == []
    assert members(bytes(10240)) == []


def hostile(*edits: tuple[int, bytes]) -> bytes:
    """Return a one-file archive with a header that was tampered with."""
    data = tar(file("name", b"x" * 100), format=tarfile.USTAR_FORMAT)
    for offset, value in edits:
        data = patched(data, offset, value)
    return data


def pax(**records: str) -> bytes:
    """Return an archive whose member has these PAX records."""
    return tar(file("name", b"x" * 100, pax_headers=records))


SIZE, TYPE = 124, 156
HOSTILE = {
    "huge size": (hostile((SIZE, b"77777777777\0")), "claims 8589934591 bytes"),
    "huge base-256 size": (hostile((SIZE, b"\x80" + b"\xff" * 11)), "claims"),
    "negative size": (hostile((SIZE, b"\xff" * 12)), "claims -1 bytes"),
    "huge PAX size": (pax(size="9" * 18), "claims 999999999999999999 bytes"),
    "PAX size that is no number": (pax(size="12a"), "bad number"),
    "huge long name": (hostile((TYPE, b"L"), (SIZE, b"77777777777\0")), "at most 1048576"),
    "huge PAX header": (hostile((TYPE, b"x"), (SIZE, b"\x80" + b"\xff" * 11)), "at most 1048576"),
    "negative global header": (hostile((TYPE, b"g"), (SIZE, b"\xff" * 12)), "at most 1048576"),
    "global header past the end": (hostile((TYPE, b"g"), (SIZE, b"00000100000\0")), "cut short"),
    "garbage as PAX header": (hostile((TYPE, b"x")), "damaged"),
    "unknown type": (hostile((TYPE, b"M")), "unknown type"),
    "bad checksum": (tar(file("a"))[:200] + b"!" + tar(file("a"))[201:], "checksum"),
    "bad octal": (hostile((SIZE, b"0000000x100\0")), "bad number"),
    "signs in octal": (hostile((SIZE, b"+0000000100\0")), "bad number"),
    "owner of 33 bits": (pax(uid="4294967296"), "impossible owner"),
    "owner below 32 bits": (hostile((108, b"\xff\xff\xff\xff\x7f\xff\xff\xff")), "impossible owner"),
    "owner with two signs": (pax(uid="--2"), "bad number"),
    "impossible time": (pax(mtime="9" * 30), "bad time"),
    "impossible device": (hostile((TYPE, b"3"), (329, b"7777777\0")), "impossible device"),
    "NUL in a PAX name": (pax(path="a\0b"), "NUL"),
    "cut in a header": (tar(file("a", b"x"))[: BLOCK // 2], "cut short"),
    "cut in the data": (tar(file("a", b"x" * 5000))[: BLOCK * 4], "claims 5000 bytes"),
    "cut after an extended header": (pax(mtime="1.5")[: 2 * BLOCK], "cut short"),
    "one zero block": (tar(file("a"))[:BLOCK] + bytes(BLOCK) + tar(file("b")), "single zero block"),
    "sparse map out of order": (pax(**{"GNU.sparse.map": "50,50,0,50", "GNU.sparse.size": "100"}), "out of order"),
    "sparse map that does not fit": (pax(**{"GNU.sparse.map": "0,50", "GNU.sparse.size": "100"}), "does not fit"),
    "sparse map beyond the file": (pax(**{"GNU.sparse.map": "50,100", "GNU.sparse.size": "100"}), "does not fit"),
    "sparse file of 2 EiB": (pax(**{"GNU.sparse.map": "0,100", "GNU.sparse.size": str(1 << 61)}), "does not fit"),
    "half a sparse map": (pax(**{"GNU.sparse.map": "0,50,60"}), "broken sparse map"),
    "sparse 1.0 without a map": (pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "broken sparse map"),
    "sparse in the future": (pax(**{"GNU.sparse.major": "2", "GNU.sparse.minor": "0"}), "unknown version"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(name: str) -> None:
    """Each lie is one clear error that says where it is."""
    data, problem = HOSTILE[name]
    with pytest.raises(DataError, match=problem) as caught:
        members(data)
    assert "byte" in str(caught.value)


def test_sparse_1_0_map_that_never_ends() -> None:
    """A map that claims a billion segments is refused after a bounded look."""
    data = tar(
        file("name", b"1000000000\n" + b"0\n" * 5000, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    )
    with pytest.raises(DataError, match="broken sparse map"):
        members(data)


def test_too_many_members() -> None:
    """Memory is bounded: by the number of members, and by what they carry."""
    for items in (
        [file(f"f{number}") for number in range(40)],
        [file("f", pax_headers={"SCHILY.xattr.user.a": "x" * 10_000})],
    ):
        counts = Unpacking(memory=10_000).part("layer 1")
        with pytest.raises(
            DataError, match=r"layer 1: the names and attributes of \d+ files take more than 9.8 KiB of memory"
        ):
            list(read_tar(source(tar(*items)), counts))
    few = [file(f"f{number}") for number in range(15)]
    assert len(list(read_tar(source(tar(*few)), Unpacking(memory=10_000).part("layer 1")))) == 15


def test_links_carry_no_data() -> None:
    """A size on a symlink or hardlink is ignored: the next header follows at once."""
    for kind in (b"1", b"2"):
        data = patched(patched(tar(symlink("s", "t"), format=tarfile.USTAR_FORMAT), TYPE, kind), SIZE, b"00000007777\0")
        assert [member.name for member in members(data[:BLOCK] + tar(file("after")))] == [b"s", b"after"]


def test_old_folders() -> None:
    """Before ustar, a folder was a name that ends with a slash."""
    data = patched(tar(file("d/"), format=tarfile.USTAR_FORMAT), TYPE, b"\0")
    assert stat.S_ISDIR(members(data)[0].mode)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (bytes(8), 0),
        (b" " * 8, 0),
        (b"\x80" + bytes(10) + b"\x05", 5),
        (b"\xff" * 12, -1),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    """Octal with any padding, and base 256 of either sign."""
    assert parse_number(field) == value


ITEMS = st.lists(
    st.builds(file, st.text(min_size=1, max_size=120).filter(lambda t: "\0" not in t), st.binary(max_size=600)),
    max_size=5
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(items=ITEMS, format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_any_honest_archive_is_read(items: list[Item], format: int) -> None:  # noqa: A002
    """Whatever names and contents `tarfile` can write come back."""
    assert [(member.name, content(member)) for member in members(tar(*items, format=format))] == [
        (info.name.encode(errors="surrogateescape"), data) for info, data in items
    ]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_archives_end_in_one_error(data: st.DataObject) -> None:
    """Flipped, cut and shuffled bytes give members or a `DataError`, never anything else, and never a hang."""
    archive = bytearray(
        pax(**{"GNU.sparse.map": "0,50,60,50", "GNU.sparse.size": "120", "mtime": "5.5"})
        + tar(file("n" * 300, b"x" * 700))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(archive) - 1))
        archive[place : place + 1] = data.draw(st.binary(max_size=3))
    for header in range(
        0, len(archive) - BLOCK, BLOCK
    ):  # so that a change behind a header is not always stopped by its checksum
        if data.draw(st.booleans()):
            archive[header : header + BLOCK] = patched(bytes(archive[header : header + BLOCK]), 0, b"")
    try:
        for member in members(bytes(archive)):
            if member.content and member.size < 1 << 20:
                member.content.pread(member.size, 0)
    except DataError:
        pass
