"""The checks of ``shed-server doctor --security`` about guests, images and registries: on a host that is well, and on
one that is not.
"""

import ctypes
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shed.checks import Status
from shed.errors import UnavailableError
from shed.oci.registry.connections import Connections
from shed.server import local
from shed.server.doctor import hostile
from shed.server.doctor.host import Host
from support.servers.doctor import found


def test_shared_folders_need_a_kernel_that_asks(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked itself."""
    assert found(host, hostile.shared_folders).status is Status.PASS

    class Old:
        def syscall(self, *_: object) -> int:
            ctypes.set_errno(95)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Old())
    row = found(host, hostile.shared_folders)
    assert row.status is Status.WARN
    assert ":ro" in row.hint


def test_git_is_told_to_take_no_files_of_a_branch_for_a_repository(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the user's settings say; a host without git has nothing to fear."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    assert found(host, hostile.repositories).status is Status.WARN
    (tmp_path / ".gitconfig").write_text("[safe]\n\tbareRepository = explicit\n")
    assert found(host, hostile.repositories).status is Status.PASS
    (tmp_path / ".gitconfig").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(host, hostile.repositories).status is Status.PASS


@contextmanager
def running(host: Host, name: str, *, kept: bool) -> Iterator[Path]:
    """Have a shed whose VM is recorded as running, with a keeper or without."""
    folder = host.paths.instances / name
    folder.mkdir()
    (folder / "vm.json").write_text("{}")
    (folder / "console.log").write_bytes(b"x")
    with (folder / "console.log").open("rb") as file:
        if kept:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield folder / "console.log"


def test_consoles_are_kept_short(host: Host) -> None:
    """By a keeper while the VM runs; one without, and one that is too long, are named."""
    assert found(host, hostile.consoles).status is Status.PASS
    with running(host, "good", kept=True), running(host, "old", kept=False) as console:
        row = found(host, hostile.consoles)
        assert row.status is Status.WARN
        assert "old" in row.detail
        assert "good" not in row.detail
        with console.open("r+b") as file:
            file.truncate((16 << 20) + 1)
        assert found(host, hostile.consoles).status is Status.FAIL


def test_guests_that_were_caught(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server knows of them is told, and obeyed by no terminal."""
    assert found(host, hostile.guests).status is Status.WARN

    def answers(*details: str) -> None:
        sheds: list[dict[str, Any]] = [
            {"name": f"s{number}", "detail": detail} for number, detail in enumerate(details)
        ]
        monkeypatch.setattr(local, "ask", lambda *_: json.loads(json.dumps({"sheds": sheds})))

    answers("", "its VM ended on its own")
    assert found(host, hostile.guests).status is Status.PASS
    answers("", "its link was dropped: \x1b[2Jjunk")
    row = found(host, hostile.guests)
    assert row.status is Status.WARN
    assert "s1" in row.detail
    assert "\x1b" not in row.detail


def test_registries_lead_nowhere_inside(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the configuration lets them; what does not hold is a FAIL."""
    assert found(host, hostile.registries).status is Status.PASS
    config = tmp_path / "server.yaml"
    config.write_text("limits: {private_hosts: [storage.example]}\n")
    row = found(Host(host.paths, config), hostile.registries)
    assert (row.status, "storage.example" in row.detail) == (Status.WARN, True)
    monkeypatch.setattr(Connections, "check", lambda *_: None)
    row = found(host, hostile.registries)
    assert row.status is Status.FAIL
    assert "169.254.169.254" in row.detail


def test_without_a_server_nothing_is_made_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be asked is not one that knows of nothing."""

    def refuses(*_: object) -> dict[str, Any]:
        raise UnavailableError("no")

    monkeypatch.setattr(local, "ask", refuses)
    assert found(host, hostile.guests).status is Status.WARN
