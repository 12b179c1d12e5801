"""Who QEMU is while it serves a folder."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from shed.backends.base import Share
from shed.backends.jail.plan import Folder, Jail, Numbers, inside
from shed.backends.qemu import command, launching, process
from shed.backends.qemu.userns import check_folders, plan
from shed.errors import UsageError
from support.vms import processes

UUID = "2a39b2a9-5e6c-4a43-9a2e-6f7f33e3a3ff"


def share(path: Path, guest: int = 1000, tag: str = "workspace") -> Share:
    return Share(tag, path, guest, guest)


def owned(path: Path, uid: int, gid: int) -> os.stat_result:
    """Return the status that `path` would have as a folder of somebody's."""
    status = list(path.stat())
    status[4], status[5] = uid, gid
    return os.stat_result(status)


@pytest.mark.parametrize(
    ("server", "owner", "guest", "expected"),
    [
        ((500, 501), (500, 501), 1000, (1000, 1000, 500, 501)),
        ((500, 501), (7, 8), 1000, (1000, 1000, 500, 501)),
        ((500, 501), (500, 501), 0, (0, 0, 500, 501)),
        ((0, 0), (0, 0), 1000, (1000, 1000, 0, 0)),
        ((0, 0), (500, 501), 1000, (1000, 1000, 500, 501)),
        ((0, 0), (500, 0), 1000, (1000, 1000, 500, 0)),
        ((0, 0), (500, 501), 0, (0, 0, 500, 501)),
    ],
)
def test_the_folders_owner_is_the_guests_user(
    tmp_path: Path,
    server: tuple[int, int],
    owner: tuple[int, int],
    guest: int,
    expected: Numbers,
) -> None:
    """One table: who runs the server, whose the folder is, who the guest's user is."""
    found = plan([share(tmp_path, guest)], [owned(tmp_path, *owner)], uid=server[0], gid=server[1])
    assert found == expected


def test_nothing_shared_is_nobody() -> None:
    """QEMU then is somebody who owns nothing."""
    assert plan([], [], uid=0, gid=0) is None


@pytest.mark.parametrize("kind", ["missing", "file", "link", "link to nothing", "below a file", "below a link"])
def test_what_cannot_be_shared_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    """The folder is named, with a hint."""
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    elif kind == "link":
        path.symlink_to(tmp_path)
    elif kind == "below a link":
        (tmp_path / "y").mkdir()
        path.symlink_to(tmp_path)
        path /= "y"
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    elif kind == "below a file":
        path.touch()
        path /= "y"
    with pytest.raises(UsageError, match=str(path)) as caught:
        check_folders([share(path)])
    assert caught.value.code == "INVALID_LOCAL_DIR"
    assert caught.value.hint


def test_a_process_really_gets_its_numbers(tmp_path: Path) -> None:
    """A started program sees the folder's owner as the guest's user, and what it makes belongs to the owner."""
    folder = tmp_path / "folder"
    folder.mkdir()
    program = (
        f"import os, socket, time; os.mkdir('made', dir_fd=os.open({inside(folder)!r}, os.O_PATH)); port, _ = "
        f"socket.socket(fileno={command.AGENT_FD}).accept();"
        " port.send(str(os.getuid()).encode()); time.sleep(60)"
    )
    real = Path(sys.executable).resolve()
    jail = Jail(real, folders=(Folder(folder),), user=(4242, 4343, os.geteuid(), os.getegid()))
    argv = [str(real), "-S", "-c", program, UUID]
    record = launching.launch(tmp_path, argv, command.Host(real, "tcg", UUID), "demo", jail)
    assert Path(f"/proc/{record.pid}/uid_map").read_text().split() == ["4242", str(os.geteuid()), "1"]
    with socket.socket(socket.AF_UNIX) as port, process.reachable(tmp_path, process.AGENT_SOCKET) as path:
        port.settimeout(60)
        port.connect(path)
        assert port.recv(10) == b"4242"
    assert (folder / "made").stat().st_uid == os.geteuid()
    processes.end(record)
