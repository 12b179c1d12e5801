"""What the checker keeps of each inode is a bit, or a few bytes: an image of tiny files does not fill the memory of the
server.

Commit 6aee119 kept an object of each inode, its place and its count of links: 600 bytes, or 6 GiB for a root of 1 GiB.
"""

from __future__ import annotations

import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs import checker
from shed.erofs.checker import Report, check
from shed.erofs.errors import ErofsError
from shed.erofs.reader import Image
from shed.erofs.verifier import verify_contents
from support.erofs.images import make_image

COUNT = 20_000


def tree(kind: str) -> Iterator[Entry]:
    """Yield many inodes: files and folders without content, or files that have two names each, far apart."""
    yield Entry(b"", stat.S_IFDIR | 0o755)
    if kind == "links":
        for folder in (b"a", b"b"):
            yield Entry(folder, stat.S_IFDIR | 0o755)
            for number in range(COUNT):
                name = b"%06d" % number
                yield (
                    Entry(b"b/" + name, 0, link=b"a/" + name)
                    if folder == b"b"
                    else Entry(b"a/" + name, stat.S_IFREG | 0o644)
                )
        return
    mode = (stat.S_IFREG if kind == "files" else stat.S_IFDIR) | 0o755
    yield from (Entry(b"%06d" % number, mode) for number in range(COUNT))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An image of each kind."""
    folder = tmp_path_factory.mktemp("images")
    return {kind: make_image(folder / kind, tree(kind)) for kind in ("files", "folders", "links")}


def checked(path: Path) -> tuple[Report, float]:
    """Return the report, and the most bytes that checking took for each inode at a time."""
    tracemalloc.start()
    try:
        report = check(path)
        return report, tracemalloc.get_traced_memory()[1] / report.inodes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("kind", "most"), [("files", 40), ("folders", 60), ("links", 160)])
def test_memory_for_each_inode(images: dict[str, Path], kind: str, most: int) -> None:
    """Of most inodes next to nothing; of folders their numbers, while they wait; of what has several names, how many
    are missing.
    """
    report, taken = checked(images[kind])
    assert report.inodes > COUNT
    assert taken < most


def test_an_image_has_so_many_inodes(images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the check ends, whatever they are."""
    monkeypatch.setattr(checker, "MAX_INODES", 1000)
    for path in images.values():
        with pytest.raises(ErofsError, match="more than 1,000 inodes") as caught:
            check(path)
        assert caught.value.rule == "inode-count"


@pytest.mark.parametrize("kind", ["files", "links"])
def test_what_is_wrong_is_named_by_its_path(images: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Paths are not kept: the one that is wrong is looked for when there is one."""
    last = b"019999" if kind == "files" else b"a/019999"
    with Image.open(images[kind]) as image:
        inode = image.lookup(last)
    data = bytearray(images[kind].read_bytes())
    data[inode.offset + (44 if inode.extended else 6)] = 7  # i_nlink
    (tmp_path / "bent").write_bytes(data)
    with pytest.raises(
        ErofsError, match=rf"inode {inode.nid} \(/{last.decode()}\): says 7 links, has {inode.nlink}"
    ) as caught:
        check(tmp_path / "bent")
    assert caught.value.rule == "nlink"


def test_comparing_walks_both_trees_together(images: dict[str, Path]) -> None:
    """The names of the image are not collected first."""
    entries = list(tree("files"))
    tracemalloc.start()
    try:
        assert verify_contents(images["files"], entries).names == COUNT + 1
        assert tracemalloc.get_traced_memory()[1] / COUNT < 60
    finally:
        tracemalloc.stop()
