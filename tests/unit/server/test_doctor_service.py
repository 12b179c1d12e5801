"""What the doctor says of the configuration, of the server and of its service."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from shed.checks import Result, Status
from shed.server import local
from shed.server.doctor import network, service
from shed.server.doctor.host import Host
from shed.server.service import systemd
from shed.version import VERSION
from support.servers.doctor import found
from support.servers.running import Running
from support.servers.world import World
from support.tools.fake_systemctl import FakeSystemctl


def test_configuration(host: Host, tmp_path: Path) -> None:
    """A file that is valid, one whose list of keys is missing, one that is not valid, one that is not there."""
    path = tmp_path / "server.yaml"
    named = Host(host.paths, path)
    path.write_text("name: here\n")
    assert found(named, service.configuration) == Result("configuration", Status.PASS, f"{path} is valid")
    path.write_text(f"ssh: {{authorized_keys: {tmp_path}/keys}}\n")
    row = found(named, service.configuration)
    assert (row.status, row.detail) == (
        Status.WARN,
        f"nobody is let in by SSH: {tmp_path}/keys: No such file or directory",
    )
    path.write_text("http_prot: 1\n")
    row = found(named, service.configuration)
    assert (row.status, row.detail, row.hint) == (
        Status.FAIL,
        f"{path}: unknown key 'http_prot'",
        "did you mean 'http_port'?",
    )
    path.unlink()
    assert "cannot read" in found(named, service.configuration).detail


def test_ssh_hosts_without_a_key(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that an older version installed are told, with the command that makes them right; nothing is said without
    any.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(service.ssh_clients(host)) == []
    path = tmp_path / ".shed/ssh_config"
    path.parent.mkdir()
    path.write_text(
        "# Written\n\nHost shed-dev\n    # on local\n    Port 2222\n\nHost shed-web\n    # on local\n    IdentityFile "
        "/k\n"
    )
    assert (found(host, service.ssh_clients).status, found(host, service.ssh_clients).hint) == (
        Status.WARN,
        "shed ssh-config --install",
    )
    path.write_text("# Written\n\nHost shed-web\n    # on local\n    IdentityFile /k\n")
    assert found(host, service.ssh_clients).status is Status.PASS


@pytest.mark.root
def test_spares_that_could_not_become_sheds(host: Host, tmp_path: Path) -> None:
    """It is said to those who asked for spares, with what to do."""
    path = tmp_path / "server.yaml"
    path.write_text("qemu: {warm_spares: 1}\n")
    named = Host(host.paths, path)
    assert found(named, service.configuration).status is Status.PASS
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host.paths.spares], check=True)
    try:
        row = found(named, service.configuration)
        assert (row.status, row.hint) == (Status.WARN, "have both on one file system, or set qemu.warm_spares to 0")
        assert f"{host.paths.spares} and {host.paths.instances} are different mounts" in row.detail
        path.write_text("name: here\n")
        assert found(named, service.configuration).status is Status.PASS
    finally:
        subprocess.run(["umount", host.paths.spares], check=True)


def test_the_server_answers(world: World) -> None:
    """One that runs, one that is of another version, one that hangs, and none."""
    host = Host(world.paths)
    assert found(host, service.answers).status is Status.WARN
    running = Running(world)
    row = found(host, service.answers)
    assert row == Result(
        "server", Status.PASS, f"{VERSION} answers at {world.paths.socket}, process {running.process.pid}"
    )
    running.end()
    assert "no server listens" in found(host, service.answers).detail


def test_a_server_that_is_not_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs, hangs up, speaks another language, or is of another version."""
    monkeypatch.setattr(local, "_TIMEOUT", 0.2)  # for the one that hangs
    host.paths.run.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(host.paths.socket))
    listener.listen()
    with listener:
        row = found(host, service.answers)
        assert row.status is Status.FAIL
        assert "timed out" in row.detail
        listener.accept()[0].close()
        monkeypatch.setattr(local, "_TIMEOUT", 60.0)
        body = b'{"version": "0.1", "pid": 7}'
        for answer, status, says in (
            (b"", Status.FAIL, "does not answer as a server"),
            (b"hello\r\n", Status.FAIL, "does not answer as a server"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", Status.FAIL, "does not speak as one"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body), Status.WARN, "is version 0.1"),
        ):

            def reply(answer: bytes = answer) -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(answer)

            thread = threading.Thread(target=reply)
            thread.start()
            row = found(host, service.answers)
            thread.join()
            assert (row.status, says in row.detail) == (status, True), row


def test_service(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, where systemd does not run, stopped, active."""
    monkeypatch.setattr(systemd.Scope, "mine", lambda: systemd.Scope.USER)
    systemctl = FakeSystemctl(tmp_path / "systemd")
    path = os.environ["PATH"]
    assert found(host, service.service).hint == "shed-server install"
    unit = systemd.Scope.USER.folder / systemd.UNIT
    unit.parent.mkdir(parents=True)
    unit.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(host, service.service) == Result(
        "service", Status.WARN, f"{unit} is there, but systemd does not run here"
    )
    monkeypatch.setenv("PATH", f"{systemctl.bin}:{path}")
    assert found(host, service.service) == Result(
        "service", Status.WARN, f"{unit} is inactive", "systemctl --user status shed-server.service"
    )
    systemctl.set("active")
    assert found(host, service.service) == Result("service", Status.PASS, f"{unit} is active")


def test_mirrors_of_this_machine(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sheds get, what they do not, and nothing where it is switched off."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_INDEX", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://pypi.corp/simple")
    row = found(host, network.mirrors)
    assert row.status is Status.PASS
    assert "PIP_INDEX_URL" in row.detail
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:s3cr3t@pypi.corp/simple")
    row = found(host, network.mirrors)
    assert (row.status, "s3cr3t" in f"{row}") == (Status.WARN, False)
    config = tmp_path / "server.yaml"
    config.write_text("guest: {mirrors: false}\n")
    assert list(network.mirrors(Host(host.paths, config))) == []
