"""Programs that people use in a shed, through a relay that reads nothing of what they say: git over SSH, Go's TLS,
streams of events.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.images.kit import archive
from support.servers import eventorigin
from support.servers.netlab import lab
from support.servers.openedshed import PLACEHOLDER, PUBLIC, Shed, certificate
from support.tools.sshd import USER, Sshd, make_key

pytestmark = [pytest.mark.root, pytest.mark.slow]
REGISTRY, PASSWORD = 5000, "correct horse"
_HTPASSWD = "me:$2y$05$.xKq6MDXXprdly81x8zQte/cv18fnCKdUDoUVHHUkgG6IArI9DZPe\n"
STREAM = """
import ssl, sys, urllib.request
base, trust = sys.argv[1], ssl.create_default_context(cafile=sys.argv[2])
with urllib.request.urlopen(base + "/events", context=trust, timeout=60) as stream:
    while line := stream.readline():
        if line.strip():
            print(line.decode().strip(), flush=True)
            urllib.request.urlopen(base + "/seen", context=trust, timeout=60).close()
"""


@pytest.fixture(scope="module")
def shed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shed]:
    """A shed, for all tests of this file."""
    with lab(tmp_path_factory.mktemp("lab")) as net:
        yield Shed(net)


def test_git_over_ssh(shed: Shed, tmp_path: Path) -> None:
    """Clones and pushes at an allowed name; elsewhere ssh and git show the sentence."""
    key = make_key(tmp_path / "id")
    bare, clone = tmp_path / "project.git", tmp_path / "clone"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    with Sshd(tmp_path / "sshd", key, namespace=shed.net.internet) as server:
        ssh = f"GIT_SSH_COMMAND={server.client()} -i {tmp_path}/id"
        shed.order({"allow": "plain.example.com", "ports": [22]})
        assert shed.run("env", ssh, "git", "clone", "-q", f"{USER}@plain.example.com:{bare}", str(clone)).endswith(
            "[0]"
        )
        (clone / "file").write_bytes(os.urandom(3 << 20))
        git = ("git", "-C", str(clone), "-c", "user.name=me", "-c", "user.email=me")
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "first"], check=True)
        assert shed.run("env", ssh, *git, "push", "-q", "origin", "HEAD:main") == "[0]"
        assert subprocess.check_output(["git", "-C", bare, "log", "--format=%s", "main"]) == b"first\n"
        said = shed.run("env", ssh, "git", "clone", "-q", f"{USER}@other.example.com:{bare}", str(tmp_path / "no"))
        assert "a connection to other.example.com:22 is not allowed: no rule allows it" in said
        assert "shed egress profile edit mine" in said
        assert said.endswith("[128]")
    assert "Accepted publickey" in (tmp_path / "sshd/log").read_text()


@pytest.mark.parametrize(("scheme", "port"), [("http", 8001), ("https", 8002)])
def test_events_come_one_by_one(shed: Shed, tmp_path: Path, scheme: str, port: int) -> None:
    """As they are sent: the server has the next one only when the last one was seen."""
    file = tmp_path / "origin.pem"
    file.write_text(certificate(shed.origin, "*.example.com", 10))
    (tmp_path / "trust.pem").write_text(shed.origin.certificate)
    shed.order({"allow": "plain.example.com"}, secrets=[])
    words = [str(file)] if scheme == "https" else []
    shed.net.start_in_internet(sys.executable, eventorigin.__file__, str(port), *words)
    url = f"{scheme}://plain.example.com:{port}"
    assert shed.python(STREAM, url, str(tmp_path / "trust.pem")) == "data: 0\ndata: 1\ndata: 2\n[0]"


@pytest.fixture(scope="module")
def registry(shed: Shed) -> str:
    """A docker-registry in the internet, by TLS and with a password; the name of an image in it, without the host."""
    folder = shed.net.folder / "registry"
    folder.mkdir()
    (folder / "tls.pem").write_text(certificate(shed.origin, "*.example.com", 10))
    (folder / "htpasswd").write_text(_HTPASSWD)
    tls = {"certificate": str(folder / "tls.pem"), "key": str(folder / "tls.pem")}
    config = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"0.0.0.0:{REGISTRY}", "tls": tls},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    serve = f"exec docker-registry serve {folder}/config.json 2> >(grep --line-buffered 'listening on')"
    shed.net.start_in_internet("bash", "-c", serve)
    push = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", f"me:{PASSWORD}"]
    target = f"docker://{PUBLIC}:{REGISTRY}/tiny"
    subprocess.run(
        ["ip", "netns", "exec", shed.net.internet, *push, f"oci-archive:{archive('busybox')}", target], check=True
    )
    return f"{REGISTRY}/tiny"


class Podman:
    """podman in the guest, with a storage of its own; it trusts the shed's authority and the server's own."""

    def __init__(self, shed: Shed, folder: Path, user: int) -> None:
        (folder / "trust.pem").write_text(shed.authority.certificate + shed.origin.certificate)
        (folder / "run").mkdir()
        for path in (folder, folder / "run"):
            os.chown(path, user, user)
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        env = [f"SSL_CERT_FILE={folder}/trust.pem", f"HOME={folder}", f"XDG_RUNTIME_DIR={folder}/run"]
        storage = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        self._shed = shed
        unset = ["-u", "CONTAINERS_CONF", "-u", "CONTAINERS_STORAGE_CONF"]  # those of the tests' own engine are root's
        self._words = [*who, "env", *unset, *env, "podman", "--cgroup-manager", "cgroupfs", *storage]

    def __call__(self, *words: str) -> str:
        """Run it; return all that it prints and its status."""
        return self._shed.run(*self._words, *words)


@pytest.fixture(params=[0, 65534], ids=["root", "rootless"])
def podman(shed: Shed, request: pytest.FixtureRequest) -> Iterator[Podman]:
    """podman as root, and as a user; the folder has a short name, as podman wants it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Podman(shed, Path(folder), request.param)


def test_podman_pulls_what_a_rule_allows(shed: Shed, registry: str, podman: Podman) -> None:
    """By Go's TLS, of which the relay reads nothing; elsewhere it says what the alert says."""
    shed.order({"allow": "plain.example.com"}, secrets=[])
    words = ("pull", "-q", "--creds", f"me:{PASSWORD}")
    assert podman(*words, f"plain.example.com:{registry}").endswith("[0]")
    assert "plain.example.com:5000/tiny" in podman("images", "--format", "{{.Repository}}")
    said = podman(*words, f"other.example.com:{registry}")
    assert "tls: access denied" in said
    assert not said.endswith("[0]")


def test_podman_pulls_with_a_secret(shed: Shed, registry: str, podman: Podman) -> None:
    """Go's TLS takes the shed's authority; the guest has a placeholder for the password, and may not push."""
    secret = shed.known(value=PASSWORD, methods=["GET", "HEAD"])
    shed.order(secrets=secret)
    image, creds = f"api.example.com:{registry}", ("--creds", f"me:{PLACEHOLDER}")
    assert podman("pull", "-q", *creds, image).endswith("[0]")
    said = podman("push", "-q", *creds, image)
    assert "403" in said
    assert not said.endswith("[0]")
    assert not podman("pull", "-q", *creds, f"plain.example.com:{registry}").endswith("[0]")
