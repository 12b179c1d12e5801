"""Copying by tar streams: the rules of ``docker cp``, what is kept, and streams that were made to do harm."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from shed.guest.archive import ArchiveError, extract, pack, root_name, unpack


def copy(source: str, target: str, *, follow: bool = False, owners: bool = False) -> list[str]:
    """Copy as `shed cp` does; return the warnings."""
    stream, warnings = io.BytesIO(), list[str]()
    pack(source, stream, follow=follow, warn=warnings.append)
    stream.seek(0)
    unpack(stream, target, called=root_name(source), owners=owners, warn=warnings.append)
    assert not stream.read(), "all of the stream is taken"
    return warnings


def tree(folder: Path) -> dict[str, str]:
    """Return what is in a folder: text of files, targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to copy in: a file, a folder with things in it, links to both, another file and an empty folder to copy
    to.
    """
    (tmp_path / "file").write_text("file")
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/a").write_text("a")
    (tmp_path / "dir/sub/b").write_text("b")
    (tmp_path / "dir/link").symlink_to("a")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-dir").symlink_to("dir")
    (tmp_path / "dangling").symlink_to("made")
    (tmp_path / "other").write_text("other")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


CONTENT = {"a": "a", "link": "-> a", "sub": "/", "sub/b": "b"}


@pytest.mark.parametrize(("source", "target", "where", "expected"), [
    ("file", "new", "new", "file"),
    ("file", "other", "other", "file"),
    ("file", "empty", "empty", {"file": "file"}),
    ("file", "empty/", "empty", {"file": "file"}),
    ("file", "empty/name", "empty", {"name": "file"}),
    ("file", ".", "file", "file"),
    ("file", "to-dir", "dir", CONTENT | {"file": "file"}),
    ("file", "dangling", "made", "file"),
    ("dir", "new", "new", CONTENT),
    ("dir", "new/", "new", CONTENT),
    ("dir/", "new", "new", CONTENT),
    ("dir/.", "new", "new", CONTENT),
    ("dir", "empty", "empty", {"dir": "/"} | {f"dir/{name}": what for name, what in CONTENT.items()}),
    ("dir/", "empty", "empty", {"dir": "/"} | {f"dir/{name}": what for name, what in CONTENT.items()}),
    ("dir/.", "empty", "empty", CONTENT),
    ("dir/sub/..", "empty", "empty", {"dir": "/"} | {f"dir/{name}": what for name, what in CONTENT.items()}),
    ("dir/sub/.", "dir", "dir", CONTENT | {"b": "b"}),
    ("to-dir/", "empty", "empty", {"to-dir": "/"} | {f"to-dir/{name}": what for name, what in CONTENT.items()}),
    ("to-dir/.", "empty", "empty", CONTENT),
])  # fmt: skip
def test_where_it_goes(place: Path, source: str, target: str, where: str, expected: str | dict[str, str]) -> None:
    """As docker's reference says, line by line."""
    copy(source, target)
    found = tree(place / where) if (place / where).is_dir() else (place / where).read_text()
    assert found == expected


@pytest.mark.parametrize(("source", "size"), [("file", 4), ("dir", 2), ("empty", 0), ("long", 1 << 20)])
def test_what_is_in_the_files_is_counted(place: Path, source: str, size: int) -> None:
    """The same on both sides, and not what the stream takes."""
    (place / "long").write_bytes(bytes(1 << 20))
    stream = io.BytesIO()
    assert pack(source, stream, follow=False, warn=pytest.fail) == size
    stream.seek(0)
    assert unpack(stream, "new", called=source, owners=False, warn=pytest.fail) == size


@pytest.mark.parametrize(("source", "target", "complaint"), [
    ("file", "new/", "new/: there is no such folder"),
    ("file", "no/name", "no/name: there is no folder"),
    ("dir", "no/name", "no/name: there is no folder"),
    ("file", "other/", "other/: not a folder"),
    ("file", "other/x", "other/x: there is no folder"),
    ("dir", "other", "other: not a folder"),
    ("dir/.", "other", "other: not a folder"),
    ("file/", "new", "file/: "),
    ("file/.", "new", "file/.: "),
    ("missing", "new", "missing: No such file"),
    ("dangling", "new/", "new/: there is no such folder"),
])  # fmt: skip
def test_what_cannot_be(place: Path, source: str, target: str, complaint: str) -> None:
    """One sentence that names the path, and nothing is changed."""
    before = tree(place)
    with pytest.raises(ArchiveError, match=f"^{complaint}"):
        copy(source, target)
    assert tree(place) == before


def test_links(place: Path) -> None:
    """A link is copied as a link; what it leads to, when that is asked for, under the link's name."""
    copy("to-file", "new")
    assert Path("new").readlink() == Path("file")
    copy("to-file", "empty", follow=True)
    copy("to-dir", "empty", follow=True)
    assert tree(place / "empty") == {"to-file": "file", "to-dir": "/"} | {
        f"to-dir/{name}": what for name, what in CONTENT.items()
    }
    with pytest.raises(ArchiveError, match=r"^dangling: No such file"):
        copy("dangling", "empty", follow=True)


def test_merging(place: Path) -> None:
    """Folders are merged, files replaced; a file is no folder, and a folder no file."""
    (place / "empty/dir/sub").mkdir(parents=True)
    (place / "empty/dir/kept").write_text("kept")
    (place / "empty/dir/a").write_text("older and longer")
    copy("dir", "empty")
    assert tree(place / "empty/dir") == CONTENT | {"kept": "kept"}
    (place / "empty/dir/a").unlink()
    (place / "empty/dir/a").mkdir()
    with pytest.raises(ArchiveError, match=r"empty/dir/a: a folder is in the place of a file"):
        copy("dir", "empty")
    (place / "empty/dir/sub/b").unlink()
    (place / "empty/dir/sub").rmdir()
    (place / "empty/dir/sub").symlink_to(place / "dir")
    (place / "empty/dir/a").rmdir()
    with pytest.raises(ArchiveError, match=r"empty/dir/sub: a file is in the place of a folder"):
        copy("dir", "empty")
    assert not any(path.name.startswith(".shed-cp") for path in place.rglob("*"))


def test_what_is_kept(place: Path) -> None:
    """Modes, times, hard links, names of any bytes, empty files; a read-only folder is no obstacle.  Set-user-ID bits
    are not kept.
    """
    name = os.fsdecode(b"odd \xff\xfe\nname")
    (place / "dir" / name).write_text("odd")
    (place / "dir/void").touch()
    (place / "dir/twin").hardlink_to(place / "dir/a")
    (place / "dir/a").chmod(0o4751)
    os.utime(place / "dir/sub/b", ns=(5, 1_700_000_000_123_000_000))
    os.utime(place / "dir/sub", ns=(5, 1_600_000_000_000_000_000))
    (place / "dir/sub").chmod(0o555)
    copy("dir", "new")
    assert (place / "new" / name).read_text() == "odd"
    assert (place / "new/void").stat().st_size == 0
    assert (place / "new/a").stat().st_ino == (place / "new/twin").stat().st_ino
    assert (place / "new/a").stat().st_mode & 0o7777 == 0o751
    assert (place / "new/sub").stat().st_mode & 0o7777 == 0o555
    assert abs((place / "new/sub/b").stat().st_mtime - 1_700_000_000.123) < 1e-5
    assert (place / "new/sub").stat().st_mtime == 1_600_000_000


@pytest.mark.root
def test_owners(place: Path) -> None:
    """The receiver's, or the sender's when they are to be kept; then set-user-ID bits are, too."""
    os.chown(place / "dir/a", 1234, 567)
    (place / "dir/a").chmod(0o4755)
    copy("dir", "mine")
    copy("dir", "theirs", owners=True)
    mine, theirs = (place / "mine/a").stat(), (place / "theirs/a").stat()
    assert (mine.st_uid, mine.st_mode & 0o7777) == (os.geteuid(), 0o755)
    assert (theirs.st_uid, theirs.st_gid, theirs.st_mode & 0o7777) == (1234, 567, 0o4755)


def test_what_is_left_out(place: Path) -> None:
    """Sockets, pipes and devices, with a warning; a pipe does not make the sender wait."""
    os.mkfifo(place / "dir/pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("dir/socket")
    warnings = copy("dir", "new")
    assert [warning.split(":")[0].split(" is ")[0] for warning in warnings] == ["dir/pipe", "dir/socket"]
    assert tree(place / "new") == CONTENT


def stream(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """Return a tar stream."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in members:
            member, content = item if isinstance(item, tuple) else (item, b"")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Return a member."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def sized(member: tarfile.TarInfo, size: int) -> bytes:
    """Return the header of a member that says it is so long."""
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


ROOT = entry("dir", tarfile.DIRTYPE)
HOSTILE = {
    "up": stream(ROOT, (entry("dir/../../out/x"), b"x")),
    "beside": stream(ROOT, (entry("out/x"), b"x")),
    "absolute": stream(ROOT, (entry("/out/x"), b"x")),
    "link": stream(ROOT, entry("dir/l", tarfile.SYMTYPE, "../../out"), (entry("dir/l/x"), b"x")),
    "absolute link": stream(ROOT, entry("dir/l", tarfile.SYMTYPE, "OUT"), (entry("dir/l/x"), b"x")),
    "link below a link": stream(ROOT, entry("dir/l", tarfile.SYMTYPE, "OUT"), entry("dir/l/d", tarfile.DIRTYPE)),
    "hard link up": stream(ROOT, entry("dir/h", tarfile.LNKTYPE, "dir/../../out/secret")),
    "hard link through a link": stream(
        ROOT, entry("dir/l", tarfile.SYMTYPE, "OUT"), entry("dir/h", tarfile.LNKTYPE, "dir/l/secret")
    ),
    "hard link to a link": stream(
        ROOT, entry("dir/l", tarfile.SYMTYPE, "OUT/secret"), entry("dir/h", tarfile.LNKTYPE, "dir/l")
    ),
    "hard link to the root": stream(ROOT, entry("dir/h", tarfile.LNKTYPE, "dir")),
    "another root": stream((entry(".bashrc/x/y"), b"x")),
    "its content": stream(entry(".", tarfile.DIRTYPE), (entry("./.bashrc"), b"x")),
    "root is a link": stream(entry("dir", tarfile.SYMTYPE, "OUT"), (entry("dir/x"), b"x")),
    "long header": io.BytesIO(stream(ROOT).getvalue()[:512] + sized(entry("p", tarfile.XHDTYPE), 2 << 20)),
    "damaged": io.BytesIO(stream(ROOT).getvalue()[:512] + b"noise" * 1000),
    "cut between members": io.BytesIO(stream(ROOT, entry("dir/a")).getvalue()[:1024]),
    "noise": io.BytesIO(b"noise" * 1000),
    "nothing": io.BytesIO(),
    "cut": io.BytesIO(stream(ROOT, (entry("dir/big"), bytes(100_000))).getvalue()[:50_000]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_leaves_the_folder(tmp_path: Path, name: str) -> None:
    """Whatever a guest sends is an error, and what lies beside stays untouched."""
    out, into = tmp_path / "out", tmp_path / "into"
    out.mkdir()
    into.mkdir()
    (out / "secret").write_text("secret")
    (into / ".bashrc").write_text("mine")
    content = HOSTILE[name].getvalue()
    while (at := content.find(b"OUT")) >= 0:  # the link's target, with the header's checksum
        start = at // 512 * 512
        member = tarfile.TarInfo.frombuf(content[start : start + 512], "utf-8", "strict")
        member.linkname = member.linkname.replace("OUT", str(out))
        content = content[:start] + member.tobuf(tarfile.GNU_FORMAT)[-512:] + content[start + 512 :]
    before = (tree(out), (out / "secret").stat().st_nlink)
    with pytest.raises(ArchiveError, match="a header of 2097152 bytes" if name == "long header" else None):
        unpack(io.BytesIO(content), str(into), called="dir", owners=False, warn=pytest.fail)
    assert (tree(out), (out / "secret").stat().st_nlink) == before
    assert (into / ".bashrc").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "into"}
    assert not any(path.name.startswith(".shed-cp") for path in into.rglob("*"))


def test_a_file_replaces_a_link_and_does_not_follow_it(place: Path) -> None:
    """Otherwise a stream could write where the user's own links lead."""
    (place / "empty/a").symlink_to(place / "other")
    copy("dir/.", "empty")
    assert (place / "other").read_text() == "other"
    assert (place / "empty/a").read_text() == "a"


def test_a_users_own_stream(place: Path) -> None:
    """Any tar, compressed too, goes into a folder that is there; devices are left out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(place / "dir", "dir")
        archive.addfile(entry("dev", tarfile.CHRTYPE))
    packed.seek(0)
    warnings: list[str] = []
    extract(packed, "empty", owners=False, warn=warnings.append)
    assert tree(place / "empty") == {"dir": "/"} | {f"dir/{name}": what for name, what in CONTENT.items()}
    assert warnings == ["dev is left out: it is neither a file nor a folder nor a link"]
    with pytest.raises(ArchiveError, match=r"^new: a tar stream needs a folder"):
        extract(packed, "new", owners=False, warn=warnings.append)


@pytest.mark.parametrize("source", ["/proc/meminfo", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/kallsyms"])
def test_files_of_the_kernel_have_no_size(source: str, place: Path) -> None:
    """Those in /proc say 0, and those in /sys a page: they are read to their end."""
    with open(source, "rb") as file:
        start = file.read(10)
    copy(source, "copied")
    copied = (place / "copied").read_bytes()
    assert copied.startswith(start)
    assert copied.endswith(b"\n")


def test_a_device_alone(place: Path) -> None:
    """There is nothing left when it is left out."""
    with pytest.raises(ArchiveError, match=r"^/dev/null: neither a file nor a folder nor a link"):
        copy("/dev/null", "copied")
    assert not (place / "copied").exists()


def test_a_file_that_shrinks_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not padded in silence."""
    fstat = os.fstat

    def lie(fd: int) -> os.stat_result:
        found = list(fstat(fd))
        found[6] += 10_000
        return os.stat_result(found)

    monkeypatch.setattr("shed.guest.archive.os.fstat", lie)
    with pytest.raises(ArchiveError, match=r"^file: it became shorter while it was read"):
        pack("file", io.BytesIO(), follow=False, warn=pytest.fail)


def test_a_link_that_is_named_is_told(place: Path) -> None:
    """It is copied as docker does, and so may lead nowhere at its new place: the warning names the option."""
    (warning,) = copy("to-file", "empty")
    assert warning == "to-file is a link to file, and is copied as one: -L copies what it points to"
    assert copy("to-file", "empty", follow=True) == []
    assert copy("dir", "empty") == []
