"""What `write_tar` writes is read back, by our reader and by others, as the very entries that went in."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.errors import DataError
from shed.oci.flatten import flatten
from shed.oci.tarwrite import write_tar
from support.erofs.images import sample_entries
from support.erofs.records import differences, record_entries
from support.erofs.trees import TREES, Trickle, file, folder, hardlink, special, symlink, tree
from support.layers.tars import members


def written(entries: Iterable[Entry]) -> bytes:
    return b"".join(write_tar(entries))


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_as_it_was(name: str) -> None:
    """Written as a tar and read again, for each generated tree; what overlayfs notes for itself is never read."""
    entries = [
        replace(entry, xattrs={key: value for key, value in entry.xattrs.items() if b"trusted.overlay." not in key})
        for entry in TREES[name](64 << 10)
        if not stat.S_ISSOCK(entry.mode)
    ]
    back = flatten([members(written(entries))])
    assert differences(record_entries(back), record_entries(entries)) == []


def test_the_same_tree_gives_the_same_bytes() -> None:
    """Nothing of the time or the machine gets in."""
    assert written(sample_entries()) == written(sample_entries())


def test_python_reads_it_too() -> None:
    """Names, types, owners, times, targets and xattrs, as another reader understands them."""
    entries = {entry.path: entry for entry in sample_entries()}
    with tarfile.open(fileobj=io.BytesIO(written(entries.values()))) as archive:
        found = {info.name.removeprefix("./").removeprefix(".").encode(): info for info in archive}
    assert found.keys() == entries.keys()
    for path, info in found.items():
        entry = entries[path]
        if entry.link is not None:
            assert (info.islnk(), info.linkname) == (True, entry.link.decode())
            continue
        assert (info.mode, info.uid, info.gid) == (stat.S_IMODE(entry.mode), entry.uid, entry.gid)
        assert float(info.mtime) == pytest.approx(entry.mtime + entry.mtime_ns / 1e9)
        assert info.linkname.encode() == entry.target
        assert {key for key in info.pax_headers if "xattr" in key} == {
            f"SCHILY.xattr.{name.decode()}" for name in entry.xattrs
        }


@pytest.mark.root
def test_gnu_tar_unpacks_it(tmp_path: Path) -> None:
    """With every attribute that GNU tar knows."""
    from support.erofs.tree_record import record_folder

    entries = [entry for entry in TREES["metadata"](4096) if entry.mtime < 1 << 33] + [
        file("z", b"z", xattrs={b"user.z": b"\0\xff\n"})
    ]
    subprocess.run(
        ["tar", "-C", tmp_path, "--xattrs", "--xattrs-include=*", "-xpf", "-"], input=written(tree(entries)), check=True
    )
    assert differences(record_folder(bytes(tmp_path)), record_entries(tree(entries))) == []


def test_a_link_follows_what_it_names() -> None:
    """Also where it comes first in the stream, and to a symlink or a device."""
    entries = tree([hardlink("a", "z"), hardlink("b", "z"), file("z", b"z"), hardlink("c", "d"), symlink("d", "z"),
                    hardlink("e", "null"), special("null", stat.S_IFCHR, major=1, minor=3)])  # fmt: skip
    names = [member.name for member in members(written(entries))]
    assert names == [b"./", b"d", b"c", b"null", b"e", b"z", b"a", b"b"]


def test_progress_counts_the_contents() -> None:
    """Bytes of files, and nothing else."""
    counts: list[int] = []
    list(write_tar(tree([file("a", b"x" * 3_000_000), file("b", b"y")]), counts.append))
    assert sum(counts) == 3_000_001


def test_contents_that_come_in_small_pieces() -> None:
    """Short reads are put together."""
    entry = Entry(b"a", stat.S_IFREG | 0o644, size=5000, content=Trickle(b"ab" * 2500))
    (_, member) = members(written(tree([entry])))
    assert member.content is not None
    assert member.content.pread(5000, 0) == b"ab" * 2500


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (special("s", stat.S_IFSOCK), "'s' is a socket"),
        (hardlink("a", "b"), "a hardlink leads to 'b', which is not there"),
        (hardlink("a", "d"), "a hardlink leads to 'd', which is not there"),
        (Entry(b"f", stat.S_IFREG | 0o644, size=6, content=Trickle(b"short")), "'f' has 5 bytes, not 6"),
        (Entry(b"f", stat.S_IFREG | 0o644, size=6), "'f' has 0 bytes, not 6"),
    ],
)
def test_what_a_tar_cannot_hold(entry: Entry, problem: str) -> None:
    """It is an error that names what."""
    with pytest.raises(DataError, match=problem):
        written(tree([folder("d"), entry]))
