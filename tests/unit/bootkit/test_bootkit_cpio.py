"""The cpio writer, read back by busybox."""

import io
import os
import stat
import subprocess
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.images.bootkit.initrd import write_cpio
from shed.images.bootkit.tree import Tree


def sample() -> Tree:
    """Return a tree with every kind of entry an initrd has."""
    tree = Tree()
    tree.file("bin/tool", b"\x7fELF" * 33, 0o755)
    tree.file("etc/empty", b"")
    tree.symlink("bin/sh", "tool")
    tree.folder("tmp", 0o1777)
    tree.device("dev/console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    return tree


def written(tree: Tree) -> bytes:
    """Return the archive of `tree`."""
    out = io.BytesIO()
    write_cpio(tree.entries(), out)
    return out.getvalue()


def test_another_program_reads_what_was_written(tmp_path: Path) -> None:
    """Names, types, modes, contents and targets come back."""
    done = subprocess.run(
        ["busybox", "cpio", "-i", "-d"],
        cwd=tmp_path,
        input=written(without_devices()),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bin/tool").read_bytes() == b"\x7fELF" * 33
    assert stat.S_IMODE((tmp_path / "bin/tool").stat().st_mode) == 0o755
    assert (tmp_path / "etc/empty").stat().st_size == 0
    assert (tmp_path / "bin/sh").readlink() == Path("tool")
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777


def without_devices() -> Tree:
    """Return the sample without what only root may make."""
    tree = Tree()
    for entry in sample().entries():
        if entry.path and not entry.path.startswith(b"dev"):
            tree._add(entry.path.decode(), entry)
    return tree


def test_devices_are_listed_with_their_numbers() -> None:
    """The console's node is the character device 5, 1."""
    done = subprocess.run(["busybox", "cpio", "-t", "-v"], input=written(sample()), capture_output=True, check=True)
    line = next(line for line in done.stdout.decode().splitlines() if line.endswith("dev/console"))
    assert line.startswith("crw-------")


def test_the_same_tree_gives_the_same_bytes_in_any_order_of_adding() -> None:
    """Order of adding does not matter, and no time or inode of the host gets in."""
    other = Tree()
    for entry in reversed(list(sample().entries())[1:]):
        other._add(entry.path.decode(), entry)
    assert written(other) == written(sample())
    assert len(written(sample())) % 512 == 0


@pytest.mark.parametrize(
    "entry", [Entry(b"b", stat.S_IFREG, link=b"a"), Entry(b"c", stat.S_IFREG, xattrs={b"user.x": b""})]
)
def test_what_the_format_cannot_hold_is_refused(entry: Entry) -> None:
    """A hardlink or an xattr would be lost silently."""
    with pytest.raises(ValueError, match="no hardlinks or xattrs"):
        write_cpio([entry], io.BytesIO())
