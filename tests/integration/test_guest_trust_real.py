"""Authorities in a root like this machine's, and the programs of this machine: do they trust a server then?

The root is an overlay of this machine's, in a mount namespace of the test's own, as a shed's is one of its image's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.egress.secrets.certificates import for_guest
from support.guests.agent import SOURCE
from support.ports import free_port
from support.registries.certificates import make_certificate
from support.servers import tlsorigin

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts"),
    pytest.mark.skipif("overlay" not in Path("/proc/filesystems").read_text(), reason="no overlayfs here"),
    pytest.mark.skipif(not Path("/etc/ssl/certs/ca-certificates.crt").exists(), reason="no bundle here"),
]
ENTER = """
mount -t tmpfs upper "$0" && mkdir "$0"/u "$0"/w "$0"/root
mount -t overlay root -o lowerdir=/,upperdir="$0"/u,workdir="$0"/w "$0"/root || exit 77
for each in proc dev; do mount --rbind /$each "$0"/root/$each; done
mount --rbind "$1" "$0"/root"$1"
exec chroot "$0"/root "$2" -I -c "$3" "$4" "$5"
"""
"""$0: an empty folder, $1: one that stays, $2: Python, $3: its program, $4: our sources, $5: what it is told."""
INSIDE = """
import json, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from shed.guest.configure import trust
from shed.guest.configure.request import Authority
told = json.loads(sys.argv[2])
def tried(env):
    env = {"PATH": os.environ["PATH"], "HOME": "/root", **env}
    return {name: subprocess.run(words, env=env, capture_output=True).returncode == 0
            for name, words in told["programs"].items()}
wanted = [Authority(told["authority"])]
found = {"before": tried({})}
variables = trust.install(wanted)
found["files"], found["variables"] = tried({}), tried(variables)
if told["update"]:
    subprocess.run(["update-ca-certificates", "--fresh"], check=True, capture_output=True)
    found["updated"] = tried({})
trust.install([])
found["removed"] = tried({})
print(json.dumps(found))
"""
PYTHON = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"
HASHED = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(capath="/etc/ssl/certs")
context.wrap_socket(socket.create_connection(("localhost", int(sys.argv[1]))), server_hostname="localhost")
"""
NODE = "fetch(process.argv[1]).catch(() => process.exit(1))"
JAVA = """
public class Get {
    public static void main(String[] words) throws Exception {
        new java.net.URL(words[0]).openStream().readAllBytes();
    }
}
"""
BY_VARIABLE = {"node"}
"""Programs with authorities of their own: files alone do not help."""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a server whose authority is in ``authority/ca.pem``."""
    certificate = make_certificate(tmp_path / "authority", "localhost")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.chain.read_bytes() + certificate.key.read_bytes())
    number = free_port()
    command = [sys.executable, "-u", tlsorigin.__file__, str(tmp_path), str(number), str(both)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield number
        server.send_signal(signal.SIGKILL)


def programs(folder: Path, port: int) -> dict[str, list[str]]:
    """Return those that this machine has, and their words."""
    url = f"https://localhost:{port}/hello"
    (folder / "Get.java").write_text(JAVA)
    known = {
        "curl": ["curl", "-sSf", url],
        "wget": ["wget", "-q", "-O", "-", url],
        "python": ["/usr/bin/python3", "-c", PYTHON, url],
        "hashed": ["/usr/bin/python3", "-c", HASHED, str(port)],
        "openssl": ["openssl", "s_client", "-connect", f"localhost:{port}", "-verify_return_error", "-brief"],
        "node": ["node", "-e", NODE, url],
        "java": ["java", f"{folder}/Get.java", url],
    }
    return {name: words for name, words in known.items() if shutil.which(words[0])}


def test_programs_trust_what_is_installed_until_it_is_removed(tmp_path: Path, port: int) -> None:
    """By the files alone, but for those that need a variable; also when the image's own tool has made them anew."""
    there = programs(tmp_path, port)
    assert {"curl", "python"} & set(there)
    told: dict[str, Any] = {
        "programs": there,
        "authority": for_guest((tmp_path / "authority/ca.pem").read_text()),
        "update": shutil.which("update-ca-certificates") is not None,
    }
    (tmp_path / "empty").mkdir()
    words = [tmp_path / "empty", tmp_path, sys.executable, INSIDE, SOURCE, json.dumps(told)]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, *map(str, words)],
        capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("no overlay of this root")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    nobody, by_files = dict.fromkeys(there, False), {name: name not in BY_VARIABLE for name in there}
    assert found["before"] == nobody
    assert found["files"] == by_files
    assert found["variables"] == dict.fromkeys(there, True)
    assert found.get("updated", by_files) == by_files
    assert found["removed"] == nobody
