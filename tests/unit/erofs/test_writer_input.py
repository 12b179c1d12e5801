"""Trees that break the contract, or that EROFS cannot hold, are refused in words before anything is published."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs.errors import ErofsError
from shed.erofs.reader import Image
from shed.erofs.verifier import verify_contents
from shed.erofs.writer import Compression, WriterOptions, write_image
from shed.errors import DataError, UsageError
from support.erofs.trees import Bytes, Trickle, file, folder, hardlink, special, symlink


def refusal(entries: Iterable[Entry]) -> ErofsError:
    with pytest.raises(ErofsError) as caught:
        write_image(entries, io.BytesIO())
    error = caught.value
    assert isinstance(error, DataError)
    assert error.code == "EROFS_INVALID"
    assert "\n" not in error.message
    return error


@pytest.mark.parametrize(
    ("rule", "named", "entries"),
    [
        ("unsorted", "/a", [folder(""), file("b"), file("a")]),
        ("unsorted", "/a/y", [folder(""), folder("a"), file("a/x"), file("b"), file("a/y")]),
        (
            "unsorted",
            "/d/x",
            [folder(""), folder("d"), folder("d-"), file("d/x")],
        ),  # sorted as bytes, not by components
        ("duplicate", "/a", [folder(""), file("a"), file("a")]),
        ("duplicate", "/a", [folder(""), folder("a"), hardlink("a", "a")]),
        ("duplicate", "/", [folder(""), folder("")]),
        ("missing-parent", "/a/b", [folder(""), file("a/b")]),
        ("missing-parent", "/a/b", [folder(""), file("a"), file("a/b")]),
        ("missing-parent", "/a/b", [folder(""), symlink("a", "x"), file("a/b")]),
        ("missing-target", "/b", [folder(""), hardlink("b", "gone")]),
        ("missing-target", "/b", [folder(""), folder("a"), hardlink("b", "a")]),
        ("missing-target", "/b", [folder(""), file("a"), hardlink("b", "c"), hardlink("c", "a")]),
        ("missing-target", "/b", [folder(""), hardlink("b", "b")]),
        ("bad-name", "/" + "n" * 256, [folder(""), file("n" * 256)]),
        ("bad-name", "/a/a/a", [folder("/".join("a" * depth)) for depth in range(2050)]),
        ("bad-name", "/.", [folder(""), file(".")]),
        ("bad-name", "/..", [folder(""), file("..")]),
        ("bad-name", "/a/..", [folder(""), folder("a"), file("a/..")]),
        ("bad-name", "/a/", [folder(""), folder("a"), file("a/")]),
        ("bad-name", "/a\0b", [folder(""), file("a\0b")]),
        ("bad-entry", "/s", [folder(""), symlink("s", "")]),
        ("bad-entry", "/s", [folder(""), symlink("s", "x" * 4096)]),
        ("bad-entry", "/s", [folder(""), symlink("s", "a\0b")]),
        ("bad-entry", "/f", [folder(""), Entry(b"f", 0o644)]),
        ("bad-entry", "/f", [folder(""), Entry(b"f", stat.S_IFREG | 0o644, uid=-1)]),
        ("bad-entry", "/f", [folder(""), Entry(b"f", stat.S_IFREG | 0o644, gid=1 << 32)]),
        ("bad-entry", "/f", [folder(""), Entry(b"f", stat.S_IFREG | 0o644, mtime=1 << 63)]),
        ("bad-entry", "/f", [folder(""), Entry(b"f", stat.S_IFREG | 0o644, mtime_ns=1_000_000_000)]),
        ("bad-entry", "/f", [folder(""), Entry(b"f", stat.S_IFREG | 0o644, size=-1, content=Bytes(b""))]),
        ("bad-entry", "/f", [folder(""), Entry(b"f", stat.S_IFREG | 0o644, size=5)]),
        ("bad-entry", "/d", [folder(""), special("d", stat.S_IFCHR, major=4096)]),
        ("bad-entry", "/d", [folder(""), special("d", stat.S_IFBLK, minor=1 << 20)]),
        ("bad-entry", "root", [file("")]),
        ("bad-entry", "root", [hardlink("", "a"), file("a")]),
        ("xattr-name", "/f", [folder(""), file("f", xattrs={b"system.other": b""})]),
        ("xattr-name", "/f", [folder(""), file("f", xattrs={b"user.": b""})]),
        ("xattr-name", "/f", [folder(""), file("f", xattrs={b"user." + b"n" * 256: b""})]),
        ("xattr-name", "/f", [folder(""), file("f", xattrs={b"system.posix_acl_access.x": b""})]),
        ("xattr-too-large", "/f", [folder(""), file("f", xattrs={b"user.v": bytes(65536)})]),
        ("xattr-too-large", "/f", [folder(""), file("f", xattrs={b"user.%d" % n: bytes(60000) for n in range(5)})]),
    ],
)
def test_bad_trees_are_refused(rule: str, named: str, entries: list[Entry]) -> None:
    """Each kind of bad entry has its rule, and the message names the path."""
    error = refusal(entries)
    assert error.rule == rule
    shown = named.encode("unicode_escape").decode() if "\0" in named else named
    assert shown in error.message.replace("\0", "\\x00")


@pytest.mark.parametrize("size", [10, 4096, 200_000, 3_000_000])
def test_content_that_is_too_short_is_refused(size: int) -> None:
    """A file with fewer bytes than promised, of any size, is named together with both sizes."""
    entry = file("dir/short", bytes(range(256)) * (size // 256 + 1))
    entry.size = size
    entry.content = Bytes(b"\x07" * (size - 1))
    error = refusal([folder(""), folder("dir"), entry])
    assert error.rule == "short-content"
    assert f"/dir/short has {size - 1} bytes" in error.message
    assert str(size) in error.message


def test_content_that_is_too_short_is_found_while_it_is_hashed() -> None:
    """Two files of one size are compared by their contents first: the check is made there too."""
    entries = [folder(""), file("a", b"\x01" * 9000), file("b", b"\x02" * 9000)]
    entries[2].content = Bytes(b"\x02" * 8999)
    assert refusal(entries).rule == "short-content"


def test_content_that_comes_in_small_pieces_is_whole(tmp_path: Path) -> None:
    """A content may return fewer bytes than asked for, as read(2) does."""
    data = bytes(range(251)) * 300
    entry = file("f", data)
    entry.content = Trickle(data)
    out = io.BytesIO()
    write_image([folder(""), entry], out)
    image = tmp_path / "image"
    image.write_bytes(out.getvalue())
    verify_contents(image, [folder(""), file("f", data)])


def test_odd_bytes_of_a_name_are_shown_on_one_line() -> None:
    """What is not text, or would break the line or the terminal, is escaped; the rest is left as it is."""
    error = refusal([folder(""), file("a\n\x1b[1m/ä\\".encode() + b"\xff/b")])
    assert error.message == "/a\\n\\x1b[1m/ä\\\\xff/b has no parent folder in the tree"


def test_errors_of_reading_contents_are_passed_on() -> None:
    """An I/O error of the source is not turned into anything else."""

    class Broken:
        def pread(self, length: int, offset: int) -> bytes:
            raise OSError(5, "Input/output error")

    entry = file("f", b"x" * 100_000)
    entry.content = Broken()
    with pytest.raises(OSError, match="Input/output error"):
        write_image([folder(""), entry], io.BytesIO())


def test_an_unfinished_image_is_no_image(tmp_path: Path) -> None:
    """When writing fails half-way, what is left in the file has no superblock."""
    entries = [folder(""), file("a", bytes(range(256)) * 20_000), file("b", b"x" * 9_000_000)]
    entries[2].content = Bytes(b"x")
    out = io.BytesIO()
    with pytest.raises(ErofsError):
        write_image(entries, out)
    assert len(out.getvalue()) > 4096
    assert not any(out.getvalue()[:4096])


def test_a_root_that_is_not_given_is_made_up(tmp_path: Path) -> None:
    """Layers often have no entry for their root: it is then a folder of root's with mode 0755."""
    for name, entries in (("none", []), ("one", [file("a", b"1")])):
        path = tmp_path / name
        with path.open("w+b") as out:
            write_image(entries, out)
        with Image.open(path) as image:
            root = image.lookup(b"")
            assert (root.mode, root.uid, root.gid, root.mtime) == (stat.S_IFDIR | 0o755, 0, 0, 0)


@pytest.mark.parametrize(
    "text",
    ["", "gzip", "lz4:3", "none:1", "lz4hc:0", "lz4hc:13", "zstd:23", "zstd:", "zstd:x", "zstd:-1", "LZ4", "zstd:٣"],
)
def test_unknown_compressions_are_refused(text: str) -> None:
    """A compression or level that does not exist is a usage error that says what exists."""
    with pytest.raises(UsageError) as caught:
        Compression.parse(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("size", [0, 1, 4095, 5000, 1 << 20, -4096])
def test_odd_cluster_sizes_are_refused(size: int) -> None:
    """A cluster is a power of two within limits."""
    with pytest.raises(UsageError, match="cluster size"):
        WriterOptions(cluster_size=size)


@pytest.mark.parametrize("threads", [0, -1, 1000])
def test_odd_numbers_of_threads_are_refused(threads: int) -> None:
    """Nobody starts a thousand threads by a slip."""
    with pytest.raises(UsageError, match="threads"):
        WriterOptions(threads=threads)
