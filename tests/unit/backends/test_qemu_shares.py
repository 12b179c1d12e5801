"""Who QEMU is while it serves a folder, where user namespaces are allowed and where they are not."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.backends.base import Machine, Share
from shed.backends.guard import mode
from shed.backends.qemu import command, machines, process, userns
from shed.backends.qemu.userns import Identity, plan
from shed.errors import UsageError
from shed.progress import Stop

UUID = "2a39b2a9-5e6c-4a43-9a2e-6f7f33e3a3ff"


def share(path: Path, guest: int = 1000, tag: str = "workspace") -> Share:
    return Share(tag, path, guest, guest)


def owned(path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> Path:
    """Make `path` look like a folder of somebody's."""
    path.mkdir()
    status = list(path.stat())
    status[4], status[5] = uid, gid
    monkeypatch.setattr(userns, "check_folder", lambda _: os.stat_result(status))
    return path


@pytest.mark.parametrize(
    ("server", "owner", "guest", "expected"),
    [
        ((500, 501), (500, 501), 1000, Identity(((1000, 500),), ((1000, 501),))),
        ((500, 501), (7, 8), 1000, Identity(((1000, 500),), ((1000, 501),))),
        ((500, 501), (500, 501), 0, Identity(((0, 500),), ((0, 501),))),
        ((0, 0), (0, 0), 1000, Identity(((1000, 0),), ((1000, 0),))),
        ((0, 0), (500, 501), 1000, Identity(((0, 0), (1000, 500)), ((0, 0), (1000, 501)), (1000, 1000))),
        ((0, 0), (500, 0), 1000, Identity(((0, 0), (1000, 500)), ((1000, 0),), (1000, 1000))),
        ((0, 0), (500, 501), 0, Identity(((0, 0),), ((0, 0),))),
    ],
)
def test_the_folders_owner_is_the_guests_user(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: tuple[int, int],
    owner: tuple[int, int],
    guest: int,
    expected: Identity,
) -> None:
    """One table: who runs the server, whose the folder is, who the guest's user is."""
    folder = owned(tmp_path / "f", monkeypatch, *owner)
    assert plan([share(folder, guest)], uid=server[0], gid=server[1]) == expected


def test_numbers_that_agree_need_no_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case of a machine with one user, 1000."""
    folder = owned(tmp_path / "f", monkeypatch, 1000, 1000)
    assert not plan([share(folder)], uid=1000, gid=1000).namespace
    assert not plan([], uid=0, gid=0).namespace


def test_without_namespaces_root_still_becomes_the_owner() -> None:
    """The guest then sees the host's numbers, but makes no file of root's."""
    assert Identity(((0, 0), (1000, 500)), ((0, 0), (1000, 501)), (1000, 1000)).without_namespace() == Identity(
        (), (), (500, 501)
    )
    assert Identity(((1000, 500),), ((1000, 501),)).without_namespace() == Identity((), ())


@pytest.mark.parametrize("kind", ["missing", "file", "link to nothing", "below a file"])
def test_what_cannot_be_shared_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    """The folder is named, with a hint."""
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    elif kind == "below a file":
        path.touch()
        path /= "y"
    with pytest.raises(UsageError, match=str(path)) as caught:
        plan([share(path)], uid=os.geteuid(), gid=os.getegid())
    assert caught.value.code == "INVALID_LOCAL_DIR"
    assert caught.value.hint


def test_a_process_really_gets_its_numbers(tmp_path: Path) -> None:
    """A started program sees the folder's owner as the guest's user, and what it makes belongs to the owner."""
    (tmp_path / "folder").mkdir()
    made = tmp_path / "folder" / "made"
    program = (
        f"import os, socket, time; os.mkdir({str(made)!r}); port, _ = "
        f"socket.socket(fileno={command.AGENT_FD}).accept();"
        " port.send(str(os.getuid()).encode()); time.sleep(60)"
    )
    argv = [sys.executable, "-S", "-c", program, UUID]
    identity = Identity(((4242, os.geteuid()),), ((4343, os.getegid()),))
    try:
        record = process.launch(tmp_path, argv, command.Host(Path(sys.executable), "tcg", UUID), "demo", identity)
    except process.NamespaceForbiddenError as error:
        pytest.skip(f"user namespaces are forbidden here: {error}")
    assert Path(f"/proc/{record.pid}/uid_map").read_text().split() == ["4242", str(os.geteuid()), "1"]
    with socket.socket(socket.AF_UNIX) as port, process.reachable(tmp_path, process.AGENT_SOCKET) as path:
        port.settimeout(60)
        port.connect(path)
        assert port.recv(10) == b"4242"
    assert made.stat().st_uid == os.geteuid()
    process.send_signal(record, signal.SIGKILL)
    os.waitpid(record.pid, 0)


def test_forbidden_namespaces_are_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and a second start that asks for none."""
    calls: list[tuple[list[str], Identity]] = []

    def launch(
        _: Path,
        argv: list[str],
        host: command.Host,
        name: str,
        identity: Identity,
        *,
        network: object,
        guard: mode.Guard,
        prepare: Callable[[int], None],
        stop: Stop,
    ) -> process.Record:
        assert network is None
        assert guard == mode.plan((share(tmp_path),))
        calls.append((argv, identity))
        if identity.namespace:
            raise process.NamespaceForbiddenError("Operation not permitted")
        return process.Record(name, 1, 1, "", host.uuid, host.accel)

    monkeypatch.setattr(process, "launch", launch)
    machine = Machine("demo", 1, 256, Path("/k"), Path("/i"), (), tmp_path, (share(tmp_path),))
    wanted = Identity(((0, 0), (1000, 500)), ((0, 0), (1000, 501)), (1000, 1000))
    _, warnings = machines._launch(machine, command.Host(Path("/qemu"), "tcg", "uuid"), wanted, lambda _: None, Stop())
    assert [identity.namespace for _, identity in calls] == [True, False]
    assert [argv[argv.index("-runas") + 1] for argv, _ in calls] == ["1000:1000", "500:501"]
    assert len(warnings) == 1
    assert "forbids user namespaces" in warnings[0]
    assert str(tmp_path) in warnings[0]
    assert warnings[0] in caplog.text
