"""Programs that people use in a shed, behind a relay that opens TLS: they need to know nothing of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.netlab import lab
from support.servers.openedshed import PLACEHOLDER, Shed
from support.servers.tlsorigin import PASSWORD

pytestmark = [pytest.mark.root, pytest.mark.slow]
BASE = f"https://me:{PLACEHOLDER}@api.example.com"


@pytest.fixture(scope="module")
def shed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shed]:
    """A shed, for all tests of this file."""
    with lab(tmp_path_factory.mktemp("lab")) as net:
        yield Shed(net)


def git(*words: str | Path) -> str:
    """Run git on the server's side."""
    author = {f"GIT_{who}_{what}": "me" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(
        ["git", *words], check=True, capture_output=True, text=True, env={**os.environ, **author}
    ).stdout


def test_git_clones_and_pushes(shed: Shed, tmp_path: Path) -> None:
    """With a placeholder for a password; a secret that may read only lets it clone and fetch."""
    served, work, clone = shed.folder / "git/me/repo.git", tmp_path / "work", tmp_path / "clone"
    git("init", "-q", "--bare", "-b", "main", served)
    git("-C", served, "config", "http.receivepack", "true")
    git("init", "-q", "-b", "main", work)
    (work / "file").write_bytes(os.urandom(3 << 20))
    git("-C", work, "add", "-A")
    git("-C", work, "commit", "-qm", "one")
    git("-C", work, "push", "-q", served, "main")
    url = f"{BASE}/git/me/repo.git"
    who = ("-c", "user.name=me", "-c", "user.email=me")
    assert shed.run("git", "clone", "-q", url, str(clone)) == "[0]"
    assert (clone / "file").read_bytes() == (work / "file").read_bytes()
    (clone / "more").write_bytes(os.urandom(3 << 20))
    git("-C", clone, "add", "-A")
    assert shed.run("git", *who, "-C", str(clone), "commit", "-qm", "two") == "[0]"
    assert shed.run("git", "-C", str(clone), "push", "-q") == "[0]"
    assert git("-C", served, "log", "--format=%s") == "two\none\n"
    assert PASSWORD not in (clone / ".git/config").read_text()

    shed.order(secrets=shed.known(paths=["/*/info/refs?service=git-upload-pack", "/*/git-upload-pack"]))
    assert shed.run("git", "-C", str(clone), "fetch", "-q") == "[0]"
    assert shed.run("git", *who, "-C", str(clone), "commit", "-q", "--allow-empty", "-m", "three") == "[0]"
    said = shed.run("git", "-C", str(clone), "push", "-q")
    assert "403" in said
    assert git("-C", served, "log", "--format=%s") == "two\none\n"
    shed.order()


def test_pip_installs_from_an_index_with_a_token(shed: Shed, tmp_path: Path) -> None:
    """The token is in the URL of the index, as people write it."""
    folder = shed.folder / "files/simple/tiny"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "ANSWER = 42\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\n")
    (folder / "index.html").write_text('<a href="tiny-1.0-py3-none-any.whl">tiny-1.0-py3-none-any.whl</a>')
    said = shed.run(
        sys.executable, "-m", "pip", "install", "-q", "--isolated", "--no-cache-dir", "--target",
        str(tmp_path / "there"), "--cert", str(shed.bundle), "--index-url", f"{BASE}/files/simple", "tiny",
    )  # fmt: skip
    assert said.endswith("[0]"), said
    assert (tmp_path / "there/tiny.py").read_text() == "ANSWER = 42\n"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_npm_installs_from_a_registry_with_a_token(shed: Shed, tmp_path: Path) -> None:
    """The token is in .npmrc; Node trusts the shed's authority."""
    registry = shed.folder / "files/npm"
    registry.mkdir(parents=True)
    package = json.dumps({"name": "tiny", "version": "1.0.0"}).encode()
    with tarfile.open(registry / "tiny-1.0.0.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/package.json")
        member.size = len(package)
        archive.addfile(member, io.BytesIO(package))
    dist = {"tarball": "https://api.example.com/files/npm/tiny-1.0.0.tgz"}
    versions = {"1.0.0": {"name": "tiny", "version": "1.0.0", "dist": dist}}
    (registry / "tiny").write_text(json.dumps({"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": versions}))
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"name": "p", "version": "1.0.0"}')
    (project / ".npmrc").write_text(
        f"registry=https://api.example.com/files/npm/\n//api.example.com/files/npm/:_authToken={PLACEHOLDER}\n"
        f"cache={tmp_path}/cache\naudit=false\nfund=false\nupdate-notifier=false\n"
    )
    said = shed.run("npm", "--prefix", str(project), "install", "tiny", "--userconfig", str(project / ".npmrc"))
    assert said.endswith("[0]"), said
    assert json.loads((project / "node_modules/tiny/package.json").read_text())["name"] == "tiny"


URLLIB = """
import sys, urllib.request
request = urllib.request.Request("https://api.example.com/private", headers={"Authorization": "Bearer " + sys.argv[1]})
print(urllib.request.urlopen(request).read().decode(), end="")
"""
FETCH = """
fetch("https://api.example.com/private", { headers: { authorization: "Bearer " + process.argv[1] } })
  .then(answer => answer.text()).then(text => process.stdout.write(text))
"""
REQUESTS = """
import sys
from pip._vendor import requests
session = requests.Session()
for _ in range(3):
    print(session.get("https://api.example.com/private", auth=("me", sys.argv[1])).text, end="")
"""


def test_clients_of_languages_and_wget(shed: Shed) -> None:
    """Python, Node and wget, each by its own TLS."""
    assert shed.python(URLLIB, PLACEHOLDER) == "welcome\n[0]"
    assert shed.python(REQUESTS, PLACEHOLDER) == "welcome\n" * 3 + "[0]"
    if shutil.which("node"):
        assert shed.run("node", "-e", FETCH, PLACEHOLDER) == "welcome\n[0]"
    said = shed.run(
        "wget", "-qO-", f"--ca-certificate={shed.bundle}", f"--header=Authorization: Bearer {PLACEHOLDER}",
        "https://api.example.com/private",
    )  # fmt: skip
    assert said == "welcome\n[0]"
    assert shed.header("Authorization") == [f"Bearer {PASSWORD}"]


def test_the_authority_is_good_enough_for_strict_clients(shed: Shed) -> None:
    """As Python from 3.13 on looks at certificates, and with both versions of TLS."""
    program = """
import ssl, socket, sys
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    sock = socket.create_connection(("api.example.com", 443))
    with context.wrap_socket(sock, server_hostname="api.example.com") as tls:
        print(tls.version(), tls.selected_alpn_protocol())
"""
    assert shed.python(program) == "TLSv1.2 http/1.1\nTLSv1.3 http/1.1\n[0]"
