"""Who is let in by the SSH front: nobody without a key, on loopback too."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import stat
import subprocess
from collections.abc import Iterator

import paramiko
import pytest

from support.ports import free_port
from support.tools.ssh import TIMEOUT, output_of
from support.tools.ssh_host import Host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the shed ``dev``, whose key file tests change."""
    root = tmp_path_factory.mktemp("host")
    keys = root / "keys"
    keys.write_text(
        "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode() + " nobody\n"
    )
    host = Host(root, tcp=free_port(), ssh={"authorized_keys": str(keys)})
    try:
        host.create("dev")
        yield host
    finally:
        host.end()


def test_no_key_no_entry(host: Host) -> None:
    """Not without a key, not by a key that nobody enrolled, by no other method, whatever the user's name.  6aee119 lets
    all of them in.
    """
    stranger, _ = host.ssh.key("stranger")
    for client in (
        host.ssh.by(None),
        host.ssh.by(stranger),
        host.ssh.by(None, "PreferredAuthentications keyboard-interactive"),
    ):
        for name in ("dev", "_api", "nope"):
            refused = client.run(f"{name}@shed", "echo in", code=255)
            assert refused.stdout == b""
            assert b"Permission denied (publickey" in refused.stderr
    with contextlib.closing(paramiko.Transport(("127.0.0.1", host.ssh.port))) as transport:
        transport.start_client(timeout=TIMEOUT)
        with pytest.raises(paramiko.BadAuthenticationType) as caught:
            transport.auth_none("dev")
        assert caught.value.allowed_types == ["publickey", "keyboard-interactive"]
        for password in ("", "dev", "x" * 100_000):
            with pytest.raises(paramiko.SSHException):
                transport.auth_password("dev", password, fallback=False)
        with pytest.raises(paramiko.SSHException):
            transport.open_session(timeout=TIMEOUT)
    assert host.ssh.run("dev@shed", "echo in").stdout == b"in\n"


def test_what_to_do_is_told(host: Host) -> None:
    """By a sentence, to a client that was refused, without a question; who gets in does not see it."""
    refused = host.ssh.by(None, "BatchMode no", "LogLevel INFO").run("dev@shed", "echo in", code=255)
    assert refused.stderr.count(b"Run `shed ssh-config --install`, then: ssh shed-NAME") == 1
    assert refused.stderr.endswith(b"Permission denied (publickey).\r\n")
    done = host.ssh.run("-o", "LogLevel=INFO", "dev@shed", "echo in")
    assert b"ssh-config" not in done.stderr


def test_a_key_is_enrolled_and_revoked(host: Host) -> None:
    """It is listed, private on disk, and let in; revoked, it is out at the next connection, while one that is open
    stays.
    """
    path, line = host.ssh.key("more")
    mine = host.ssh.by(path)
    host.enrol(line + "\x1b]0;title\x07")
    host.enrol(line, status=200)
    (found,) = [key for key in host.get("/api/ssh-keys")["keys"] if key["key"] == " ".join(line.split()[:2])]  # type: ignore[attr-defined]
    assert found["comment"] == "more]0;title"
    shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
    assert shown.split()[1] == found["fingerprint"]
    assert stat.S_IMODE((host.world.paths.data / "ssh_authorized_keys").stat().st_mode) == 0o600
    client = mine.start("dev@shed", "echo up; read line; echo $line")
    assert client.stdout is not None
    assert client.stdin is not None
    assert client.stdout.read(3) == b"up\n"
    host.revoke(line)
    assert b"Permission denied" in mine.run("dev@shed", "true", code=255).stderr
    client.stdin.write(b"still here\n")
    client.stdin.flush()
    assert output_of([client])[0][::2] == (b"still here\n", 0)
    status, _ = host.server.request("DELETE", "/api/ssh-keys/SHA256%3Anone")
    assert status == 404


def test_what_the_configuration_says_of_a_key_wins(host: Host) -> None:
    """Enrolling a key does not lift the restrictions that it has there, nor does a list that cannot be read."""
    path, line = host.ssh.key("restricted")
    keys = host.world.paths.data.parent.parent / "keys"
    before = keys.read_text()
    mine = host.ssh.by(path)
    try:
        host.enrol(line)
        assert mine.run("dev@shed", "echo in").stdout == b"in\n"
        keys.write_text(f'from="192.0.2.1" {line}\n')
        mine.run("dev@shed", "true", code=255)
        keys.write_text(f'command="echo forced" {line}\n')
        assert mine.run("dev@shed", "echo in").stdout == b"forced\n"
        keys.chmod(0o666)
        mine.run("dev@shed", "true", code=255)
        keys.chmod(0o600)
        enrolled = host.world.paths.data / "ssh_authorized_keys"
        enrolled.chmod(0o620)
        host.ssh.run("dev@shed", "true", code=255)
        enrolled.chmod(0o600)
        host.ssh.run("dev@shed", "true")
    finally:
        keys.chmod(0o600)
        keys.write_text(before)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "ssh-ed25519 AAAA",
        'command="x" ssh-ed25519 AAAA',
        "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x07ssh-rsa" + bytes(99)).decode(),
        "ssh-dss " + base64.b64encode(b"\0\0\0\x07ssh-dss" + bytes(99)).decode(),
        5,
    ],
)
def test_what_is_no_key(host: Host, key: object) -> None:
    """Is refused with a sentence, and nothing is written."""
    enrolled = host.world.paths.data / "ssh_authorized_keys"
    before = enrolled.read_bytes()
    status, answer = host.server.request("POST", "/api/ssh-keys", json.dumps({"key": key}))
    assert status == 400, answer
    assert enrolled.read_bytes() == before


def test_a_line_break_makes_no_second_key(host: Host) -> None:
    """What follows it in a request is part of the comment, and harmless."""
    _, first = host.ssh.key("first")
    _, second = host.ssh.key("second")
    host.enrol(f"{first}\n{second}")
    keys = [key["key"] for key in host.get("/api/ssh-keys")["keys"]]  # type: ignore[attr-defined]
    assert " ".join(first.split()[:2]) in keys
    assert " ".join(second.split()[:2]) not in keys
    assert len((host.world.paths.data / "ssh_authorized_keys").read_text().splitlines()) == len(keys)


@pytest.mark.parametrize(("right", "status"), [(None, 401), ("read", 403), ("use", 403), ("admin", 200)])
def test_the_tcp_port(host: Host, right: str | None, status: int) -> None:
    """Who enrols a key there needs a token with the right to administer: a key opens every shed.  6aee119 asks nobody
    for anything.
    """
    headers = {}
    if right is not None:
        body = {"name": right, "right": right, "sha256": hashlib.sha256(right.encode()).hexdigest()}
        assert host.server.request("POST", "/api/tokens", json.dumps(body))[0] == 201
        headers["Authorization"] = f"Bearer {right}"
    for method in ("GET", "POST"):
        connection = http.client.HTTPConnection("127.0.0.1", int((host.world.paths.data.parent / "port").read_text()))
        connection.request(method, "/api/ssh-keys", json.dumps({"key": host.ssh.public}), headers)
        assert connection.getresponse().status == status
        connection.close()
