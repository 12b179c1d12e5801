"""`shed erofs`: what it prints for people and for machines, and how it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shed.cli.app import run
from shed.cli.options import Options
from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.errors import NotFoundError, ShedError, UsageError
from support.erofs.images import Damaged, make_image, sample_entries
from support.erofs.trees import text


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image") / "root.erofs", sample_entries())


@pytest.fixture
def broken(image: Path, tmp_path: Path) -> Path:
    damaged = Damaged(image, tmp_path / "broken.erofs")
    damaged.superblock(
        feature_incompat=damaged.description().feature_incompat & ~layout.INCOMPAT_BIG_PCLUSTER, compression=0
    )
    return damaged.save()


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert run(["erofs", "--json", *map(str, words)], Options()) == 0
    return json.loads(capsys.readouterr().out)


def lines(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert run(["erofs", *map(str, words)], Options()) == 0
    return capsys.readouterr().out.splitlines()


def test_check_of_a_valid_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for people, and the counts with --json."""
    assert lines(capsys, "check", image)[0].startswith(f"{image}: valid, 59 inodes, ")
    report = answer(capsys, "check", "--data", image)
    assert (report["valid"], report["inodes"], report["kinds"]["directory"]) == (True, 59, 3)


def test_check_names_the_inode_and_the_rule(image: Path, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error has the file, the inode, its path and the rule."""
    nid = answer(capsys, "dump", "--path", "/large", image)["inode"]
    with pytest.raises(ErofsError) as caught:
        run(["erofs", "check", str(broken)], Options())
    assert caught.value.exit_code == 1
    for part in (str(broken), f"inode {nid}", "/large", "[big-pcluster-undeclared]"):
        assert part in caught.value.message


def test_check_for_machines_answers_even_when_the_image_is_broken(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer says what is wrong; the exit code is 1."""
    assert run(["erofs", "check", str(broken), "--json"], Options()) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["valid"], report["rule"]) == (False, "big-pcluster-undeclared")
    assert report["inode"] > 0


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """Nobody has it open for writing: an ordinary open would wait for that."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ErofsError, match="is a pipe"):
        run(["erofs", "check", str(tmp_path / "pipe")], Options())


def test_ls_lists_names_in_order(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The root, a folder, and all with -R."""
    assert lines(capsys, "ls", image)[:4] == ["attributes", "device", "folder", "large"]
    assert lines(capsys, "ls", image, "/folder") == ["inner"]
    assert lines(capsys, "ls", "-R", image)[3:5] == ["folder/inner", "large"]


def test_ls_long(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mode, links, owner, size, time, device numbers and symlink targets."""
    listed = {line.split("Z ", 1)[1]: line.split() for line in lines(capsys, "ls", "-lR", image)}
    assert listed["folder/inner"][:6] == ["-rw-r--r--", "1", "1000", "70000", "9000", "2023-11-14T22:13:20Z"]
    assert listed["device"][4:6] == ["4,", "64"]
    assert listed["link -> folder/inner"][0] == "lrwxrwxrwx"


def test_ls_for_machines(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hard links show one inode."""
    listed = {item["path"]: item for item in answer(capsys, "ls", image)}
    assert listed["link"]["target"] == "folder/inner"
    assert listed["device"]["device"] == [4, 64]
    assert listed["large"]["inode"] == listed["large-too"]["inode"]


def test_cat_writes_the_bytes_and_follows_links(image: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Whole files, by path or by symlink."""
    assert run(["erofs", "cat", str(image), "/large"], Options()) == 0
    assert capsysbinary.readouterr().out == text(300_000)
    assert run(["erofs", "cat", str(image), "link"], Options()) == 0
    assert capsysbinary.readouterr().out == text(9000, 2)


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are not UTF-8, and those that a terminal would obey, are listed, found, and harmless in messages."""
    folder = Entry(b"d\xff", 0o40755, 0, 0, 0)
    image = make_image(
        tmp_path / "odd.erofs", [Entry(b"", 0o40755, 0, 0, 0), folder, Entry(b"d\xff/\x1b[31m\n", 0o100644, 0, 0, 0)]
    )
    assert lines(capsys, "ls", "-R", image) == [r"d\xff", r"d\xff/\x1b[31m\n"]
    assert [file["path"] for file in answer(capsys, "ls", "-R", image)] == ["d\udcff", "d\udcff/\x1b[31m\n"]
    for words, message in (
        (["cat", str(image), "d\udcff"], r"/d\xff is a directory, not a file"),
        (["cat", str(image), "/d\udcff/\x1b"], rf"/d\xff/\x1b is not in {image}"),
    ):
        with pytest.raises(ShedError) as caught:
            run(["erofs", *words], Options())
        assert caught.value.message == message


def test_dump_of_the_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Superblock, features and compression settings."""
    dumped = answer(capsys, "dump", image)
    assert dumped["magic"] == "0xe0f5e1e2"
    assert dumped["blocks"] * 4096 == image.stat().st_size == dumped["size"]
    assert dumped["features"] == ["sb_csum", "mtime", "lz4_0padding", "big_pcluster", "chunked_file"]
    assert any(line.startswith("compression settings  lz4") for line in lines(capsys, "dump", image))


def test_dump_of_an_inode(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By path and by number, with attributes and extents."""
    dumped = answer(capsys, "dump", "--path", "attributes", image)
    assert dumped["xattrs"]["user.one"] == b"1".hex()
    large = answer(capsys, "dump", "--path", "large", image)
    assert sum(extent["length"] for extent in large["extents"]) == large["size"] == 300_000
    assert answer(capsys, "dump", "--nid", large["inode"], image) == large
    assert "lz4" in lines(capsys, "dump", "--path", "large", image)[-2]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["check", "nowhere"], NotFoundError),
        (["cat", "IMAGE", "/no/such"], NotFoundError),
        (["cat", "IMAGE", "/folder"], UsageError),
        (["cat", "IMAGE"], UsageError),
        (["ls", "IMAGE", "/loop"], NotFoundError),
        (["dump", "--nid", "99999999", "IMAGE"], ErofsError),
        (["dump", "--nid", "-5", "IMAGE"], UsageError),
        (["dump", "--nid", "1", "--path", "/", "IMAGE"], UsageError),
        (["check", "/"], ErofsError),
    ],
)
def test_mistakes_end_in_a_sentence(image: Path, words: list[str], error: type[Exception]) -> None:
    """Each is the error of its class, not a traceback."""
    with pytest.raises(error):
        run(["erofs", *[str(image) if word == "IMAGE" else word for word in words]], Options())
