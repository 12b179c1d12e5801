"""`shed-server install` and `uninstall` as a user runs them, with a service manager that notes what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shed.errors import UnavailableError
from shed.server import local
from support.servers.fake_server import fake_server
from support.tools.fake_systemctl import FakeSystemctl

Environment = dict[str, str]


@pytest.fixture
def systemctl(tmp_path: Path) -> FakeSystemctl:
    """A service manager."""
    return FakeSystemctl(tmp_path / "systemd")


@pytest.fixture
def environment(tmp_path: Path, systemctl: FakeSystemctl) -> Environment:
    """A user with a home and nothing in it."""
    home = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PATH": f"{systemctl.bin}:{os.environ['PATH']}",
    }
    return {**os.environ, **home, "SHED_DATA_DIR": str(tmp_path / "data"), "SHED_RUNTIME_DIR": str(tmp_path / "run")}


def server(environment: Environment, *words: str, code: int = 0, before: tuple[str, ...] = ()) -> str:
    """Run `shed-server` and return what it says."""
    command = [*before, sys.executable, "-m", "shed.server.main", *words]
    done = subprocess.run(
        command, env=environment, cwd=environment["HOME"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_users_service_from_beginning_to_end(
    environment: Environment, systemctl: FakeSystemctl, tmp_path: Path
) -> None:
    """Installed, installed again, changed, removed, removed again; the data is never touched."""
    unit = tmp_path / "config/systemd/user/shed-server.service"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/kept").touch()
    assert "started the service" in server(environment, "install", "--user")
    assert systemctl.calls() == ["daemon-reload", "enable --now"]
    first = unit.read_text()
    assert f"ExecStart={Path(sys.executable).with_name('shed-server')} serve\n" in first
    assert f"Environment=SHED_DATA_DIR={tmp_path}/data\n" in first
    assert "the service is active" in server(environment, "install", "--user")
    assert (systemctl.calls(), unit.read_text()) == (["daemon-reload", "enable"], first)
    (tmp_path / "here.yaml").write_text("name: here\n")
    assert "restarted the service; sheds keep running" in server(
        environment, "install", "--user", "--config", "here.yaml"
    )
    assert systemctl.calls() == ["daemon-reload", "enable", "restart"]
    assert f"serve --config {tmp_path}/here.yaml\n" in unit.read_text()
    assert f"all data stays in {tmp_path}/data" in server(environment, "uninstall", "--user")
    assert (systemctl.calls(), systemctl.state(), unit.exists()) == (
        ["disable --now", "daemon-reload"],
        "inactive",
        False,
    )
    assert f"there is no {unit}" in server(environment, "uninstall", "--user")
    assert systemctl.calls() == []
    assert (tmp_path / "data/kept").exists()


@pytest.mark.parametrize("place", ["--config", "home"])
def test_an_invalid_configuration_changes_nothing(
    environment: Environment, systemctl: FakeSystemctl, tmp_path: Path, place: str
) -> None:
    """Neither the unit nor the service that runs."""
    server(environment, "install", "--user")
    unit = tmp_path / "config/systemd/user/shed-server.service"
    before = unit.read_text()
    systemctl.calls()
    path = tmp_path / ("bad.yaml" if place == "--config" else ".config/shed/server.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("http_prot: 1\n")
    said = server(environment, "install", "--user", *(["--config", str(path)] if place == "--config" else []), code=2)
    assert f"{path}: unknown key 'http_prot'" in said
    assert (systemctl.calls(), systemctl.state(), unit.read_text()) == ([], "active", before)


def test_a_file_in_this_folder_is_not_the_services(environment: Environment, tmp_path: Path) -> None:
    """It would not find it, so its mistakes do not matter."""
    (tmp_path / "server.yaml").write_text("http_prot: 1\n")
    server(environment, "install", "--user")
    server(environment, "config-validate", code=2)


def test_a_service_that_does_not_start(environment: Environment, systemctl: FakeSystemctl) -> None:
    """Is said with what systemd said."""
    systemctl.refuse()
    assert "Job for shed-server.service failed" in server(environment, "install", "--user", code=1)


def test_where_systemd_does_not_run(environment: Environment, tmp_path: Path, systemctl: FakeSystemctl) -> None:
    """The unit is written, and it is said that nothing was started; with no systemd at all, too."""
    (systemctl.bin / "systemctl").write_text("#!/bin/sh\necho offline\nexit 1\n")
    for _ in range(2):
        assert "systemd does not run here" in server(environment, "install", "--user")
        environment["PATH"] = str(tmp_path)
    assert (tmp_path / "config/systemd/user/shed-server.service").exists()
    assert "removed" in server(environment, "uninstall", "--user")


def test_a_server_that_runs_already_makes_room(
    environment: Environment, systemctl: FakeSystemctl, tmp_path: Path
) -> None:
    """It was started by `shed`, and would keep the service from starting."""
    with fake_server(tmp_path):
        assert "stopped the server that ran here" in server(environment, "install", "--user")
        with pytest.raises(UnavailableError, match="no server listens"):
            local.ask(tmp_path / "run/shed.sock", "GET", "/api/info")
    assert systemctl.state() == "active"


def test_wrong_words(environment: Environment, systemctl: FakeSystemctl) -> None:
    """One sentence each, before anything is done."""
    assert "runs as that user" in server(environment, "install", "--user", "--run-as", "root", code=2)
    if os.geteuid() == 0:
        assert "there is no user 'nobody-like-this'" in server(
            environment, "install", "--run-as", "nobody-like-this", code=2
        )
    assert systemctl.calls() == []


@pytest.mark.root
def test_the_machines_service(environment: Environment, systemctl: FakeSystemctl, tmp_path: Path) -> None:
    """Root's, in a mount namespace where /etc/systemd is the test's own; for another user with folders that it can
    reach.
    """
    etc = tmp_path / "etc"
    (etc / "system").mkdir(parents=True)
    private = ("unshare", "--mount", "sh", "-c", f'mount --bind {etc} /etc/systemd && exec "$@"', "sh")
    unit = etc / "system/shed-server.service"
    del environment["SHED_DATA_DIR"]
    assert "started the service" in server(environment, "install", before=private)
    assert systemctl.calls() == ["daemon-reload", "enable --now"]
    assert "WantedBy=multi-user.target\n" in unit.read_text()
    assert "User=" not in unit.read_text()
    assert "restarted" in server(environment, "install", "--run-as", "daemon", before=private)
    text = unit.read_text()
    assert "User=daemon\n" in text
    assert "Environment=SHED_DATA_DIR=/var/lib/shed/qemu\n" in text
    assert f"Environment=SHED_RUNTIME_DIR={tmp_path}/run\n" in text
    assert "removed /etc/systemd/system/shed-server.service" in server(environment, "uninstall", before=private)
    assert list((etc / "system").iterdir()) == []
