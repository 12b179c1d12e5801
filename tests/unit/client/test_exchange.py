"""What comes from a shed into the user's folder, and what of it a shed gets."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from shed.client import exchange
from shed.client.exchange import INCOMING, Exchange, check_incoming
from shed.errors import DataError, ForbiddenError, UsageError
from shed.guest import archive, tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's folder, beside a secret of the user's."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("SECRET")
    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/sub/key").write_text("plain")
    return tmp_path / "folder"


def stream(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """Return what a hostile shed sends: names, kinds, and contents or targets."""
    data = b""
    for name, kind, content in members:
        member = tar.Member(name, kind)
        member.mode = 0o4777
        if kind == tar.FILE:
            member.size = len(content)
            data += tar.header(member) + tar.padded(content.encode())
        else:
            member.link = content
            data += tar.header(member)
    return io.BytesIO(data + tar.end(len(data)))


def everything(folder: Path) -> list[str]:
    """Return all paths below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_plain_files_come(folder: Path) -> None:
    """A file, or a folder of them, into one place, where nobody may execute them."""
    into = Exchange(folder)
    into.unpack(stream(("a", tar.FILE, "good")), "x")
    into.unpack(stream(("a/", tar.FOLDER, ""), ("a/b", tar.FILE, "good")), "y")
    assert everything(folder / INCOMING) == ["x", "y", "y/b"]
    for name in ("x", "y/b"):
        assert (folder / INCOMING / name).read_text() == "good"
        assert stat.S_IMODE((folder / INCOMING / name).stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "name",
    [
        ".git/hooks/post-checkout",
        ".vscode/tasks.json",
        "mise.toml",
        "a.code-workspace",
        "HEAD",
        ".envrc",
        "GIT~1",
        "\u2024git",
        "../x",
        "a\nb",
        "deep/.x/y",
    ],
)
def test_what_this_machine_may_run_does_not_come(name: str, folder: Path) -> None:
    """By any part of its path; nor anything else with it."""
    with pytest.raises(DataError):
        Exchange(folder).unpack(
            stream(("a/", tar.FOLDER, ""), ("a/b", tar.FILE, "1"), (f"a/{name}", tar.FILE, "")), "x"
        )
    assert everything(folder / INCOMING) == []


@pytest.mark.parametrize(
    "members",
    [
        [("a", tar.LINK, "/etc")],
        [("a/", tar.FOLDER, ""), ("a/l", tar.LINK, "../../..")],
        [("a/", tar.FOLDER, ""), ("a/b", tar.FILE, ""), ("a/l", tar.HARD_LINK, "a/b")],
        [("a/", tar.FOLDER, ""), ("b", tar.FILE, "")],
        [("a/b", tar.FILE, "")],
        [],
    ],
)
def test_what_is_no_file_or_was_not_asked_for(members: list[tuple[str, bytes, str]], folder: Path) -> None:
    """Links of both kinds, and what is beside what was named."""
    with pytest.raises((DataError, archive.ArchiveError)):
        Exchange(folder).unpack(stream(*members), "x")
    assert everything(folder / INCOMING) == []


@pytest.mark.parametrize(
    "name",
    ["", "..", ".x", "a/b", ".git/hooks/post-checkout", "/etc/x", "mise.toml", "HEAD", "a\nb", "\ud800", "x" * 256],
)
def test_names_that_nothing_gets(name: str) -> None:
    """What comes has one plain name, below the folder for it."""
    with pytest.raises(UsageError):
        check_incoming(name)


def test_nothing_is_replaced(folder: Path) -> None:
    """What is there stays as it is, also when a copy fails."""
    into = Exchange(folder)
    into.unpack(stream(("a", tar.FILE, "first")), "x")
    for member in (("a", tar.FILE, "second"), ("a/", tar.FOLDER, "")):
        with pytest.raises(UsageError, match="is there already"):
            into.unpack(stream(member), "x")
    assert (folder / INCOMING / "x").read_text() == "first"


def test_a_link_that_a_shed_puts_in_the_place_of_the_folder(folder: Path) -> None:
    """Nothing goes where it leads."""
    into = Exchange(folder)
    (folder / INCOMING).symlink_to("../secret")
    with pytest.raises(UsageError, match="is no folder"):
        into.unpack(stream(("a", tar.FILE, "bad")), "x")
    assert everything(folder.parent / "secret") == ["key"]


def test_too_much(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are counted, and bytes of all copies together."""
    monkeypatch.setattr(exchange, "MOST_FILES", 3)
    monkeypatch.setattr(exchange, "MOST_BYTES", 10)
    into = Exchange(folder)
    with pytest.raises(DataError, match="more than 3 files"):
        into.unpack(stream(("a/", tar.FOLDER, ""), *((f"a/{n}", tar.FILE, "") for n in range(3))), "x")
    into.unpack(stream(("a", tar.FILE, "123456")), "x")
    with pytest.raises(DataError, match="this session has copied"):
        into.unpack(stream(("a", tar.FILE, "12345")), "y")
    assert everything(folder / INCOMING) == ["x"]


def test_the_disk_keeps_some_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for which there is none does not come."""
    monkeypatch.setattr(exchange, "_FREE", 1 << 60)
    with pytest.raises(DataError, match="no room"):
        Exchange(folder).unpack(stream(("a", tar.FILE, "1")), "x")


@pytest.mark.parametrize("path", ["sub/key", "sub", "./sub//key"])
def test_a_shed_gets_what_is_in_the_folder(path: str, folder: Path, tmp_path: Path) -> None:
    """A file, or a folder with what is below it."""
    (folder / "sub/inner").mkdir()
    (folder / "sub/inner/x").write_text("x")
    out = io.BytesIO()
    assert Exchange(folder).pack(path, out) == (6 if path == "sub" else 5)
    out.seek(0)
    target = tmp_path / "target"
    archive.unpack(out, str(target), called=path.rpartition("/")[2], owners=False, warn=pytest.fail)
    assert everything(target) == (["inner", "inner/x", "key"] if path == "sub" else [])


@pytest.mark.parametrize("swapped", ["sub", "sub/key", "sub/inner"])
def test_a_shed_that_puts_a_link_on_the_way(swapped: str, folder: Path) -> None:
    """At whatever moment it does: nothing of where it leads is sent."""
    (folder / "sub/inner").mkdir()
    (folder / "sub/inner/key").write_text("plain")
    source = Exchange(folder)
    (folder / swapped).rename(folder / "away")
    (folder / swapped).symlink_to(folder.parent / ("secret/key" if swapped == "sub/key" else "secret"))
    out = io.BytesIO()
    path = "sub/inner/key" if swapped == "sub/inner" else "sub/key"
    with pytest.raises(ForbiddenError, match="a link is on the way"):
        source.pack(path, out)
    assert out.getvalue() == b""


def test_a_folder_that_becomes_a_link_while_it_is_read(folder: Path) -> None:
    """Its descriptor is read, and not what has its name now."""
    (folder / "sub/inner").mkdir()
    (folder / "sub/inner/key").write_text("plain")

    real = os.fwalk

    def walking(*words: object, **options: object) -> object:
        for found in real(*words, **options):  # type: ignore[call-overload]
            yield found
            if found[0] == "sub":
                (folder / "sub/inner").rename(folder / "away")
                (folder / "sub/inner").symlink_to(folder.parent / "secret")

    out = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fwalk", walking)
        Exchange(folder).pack("sub", out)
    assert b"plain" in out.getvalue()
    assert b"SECRET" not in out.getvalue()


@pytest.mark.parametrize("path", ["../secret/key", "/etc/passwd", ".", "", "..", "a/../../x", "\0", "\ud800", "x\n"])
def test_paths_that_lead_out_of_the_folder(path: str, folder: Path) -> None:
    """By dots, from the root, or because they are the folder itself."""
    with pytest.raises(ForbiddenError):
        Exchange(folder).pack(path, io.BytesIO())


@pytest.mark.parametrize("path", ["link", "link/x", ".git/hooks", "missing"])
def test_folders_that_are_not_lent(path: str, folder: Path) -> None:
    """Those behind a link, which a shed may have put there, and git's own."""
    (folder / "link").symlink_to("sub")
    (folder / "sub/x").mkdir()
    (folder / ".git/hooks").mkdir(parents=True)
    with pytest.raises(UsageError):
        Exchange(folder / path)
