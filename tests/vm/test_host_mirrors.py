"""The host's settings for mirrors of packages, in a real guest: pip, npm and apt use them without anything to do."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.servers.netlab import lab
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
MIRROR, PUBLIC = "mirror.corp.example", "93.184.216.34"
ARCHIVE = "packages.corp.example"
"""A host that the mirror alone knows: it is apt's proxy."""
SETTINGS = ("PIP_", "UV_", "NPM_CONFIG_", "npm_config_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


def make_python_index(web: Path) -> None:
    """Put an index of one package into the folder of a web server."""
    folder, name = web / "simple/greeting", "greeting-1.0-py3-none-any.whl"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<!DOCTYPE html><html><body><a href="{name}">{name}</a></body></html>')
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("greeting.py", "print('hello from pip')\n")
        wheel.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("greeting-1.0.dist-info/RECORD", "")


def make_npm_registry(web: Path, source: Path) -> None:
    """Put a registry of one package into the folder of a web server; `source` is a folder to make it in."""
    about = {"name": "greeting", "version": "1.0.0", "bin": {"greeting": "greeting.js"}}
    source.mkdir()
    (source / "package.json").write_text(json.dumps(about))
    (source / "greeting.js").write_text("#!/usr/bin/env node\nconsole.log('hello from npm')\n")
    (web / "npm").mkdir()
    packed = web / "greeting-1.0.0.tgz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(source, "package")
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    dist = {"tarball": f"http://{MIRROR}/{packed.name}", "integrity": f"sha512-{digest}"}
    document = {"name": "greeting", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {**about, "dist": dist}}}
    (web / "npm/greeting").write_text(json.dumps(document))


def make_debian_archive(web: Path, source: Path) -> None:
    """Put a repository of one package where the web server finds it as a proxy; `source` is as above."""
    folder = web / "http:" / ARCHIVE / "debian"
    folder.mkdir(parents=True)
    program = source / "usr/bin/greeting-of-apt"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho hello from apt\n")
    program.chmod(0o755)
    control = "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@corp.example>\n"
    control += "Description: says hello\n"
    (source / "DEBIAN").mkdir()
    (source / "DEBIAN/control").write_text(control)
    package = folder / "greeting.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", source, package], check=True, capture_output=True)
    content = package.read_bytes()
    entry = f"Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    index = (control + entry).encode()
    (folder / "Packages").write_bytes(index)
    (folder / "Release").write_text(f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n")


@pytest.fixture
def machine(way: str, variant_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with settings for mirrors in the files of the server's user and its own; nobody else has anything."""
    home = tmp_path / "machine"
    machine = Machine(home, way=way)
    for name in [name for name in machine.environment if name.startswith(SETTINGS)]:
        del machine.environment[name]
    conf = home / ".config/pip/pip.conf"
    conf.parent.mkdir(parents=True)
    url = f"http://{MIRROR}/simple"
    conf.write_text(f"[global]\nindex-url = {url}\nextra-index-url = {url}\ntrusted-host = {MIRROR}\n")
    (home / ".npmrc").write_text(f"registry=http://{MIRROR}/npm/\n")
    (tmp_path / "apt.conf.d").mkdir()
    (tmp_path / "apt.conf.d/proxy").write_text(f'Acquire::http::Proxy "http://{MIRROR}";\n')
    copy_store(variant_store, machine.data / "images")
    (tmp_path / "lab").mkdir()
    with lab(tmp_path / "lab", guest=False) as net:
        web = tmp_path / "lab/web"
        make_python_index(web)
        make_npm_registry(web, tmp_path / "npm")
        make_debian_archive(web, tmp_path / "deb")
        serve = f"mount --bind {tmp_path}/apt.conf.d /etc/apt/apt.conf.d && exec {sys.executable} -m shed.server.main"
        net.start_in_host(f"{serve} serve 2>&1", **machine.environment)
        net.names({MIRROR: [PUBLIC]})
        try:
            yield machine
        finally:
            machine.end()


def test_packages_come_from_the_mirrors_of_the_host(machine: Machine) -> None:
    """Those of pip, npm and apt; the programs in the shed are told of none, and its user installs as on a machine of
    its own.
    """
    machine.shed("create", "dev", "--image", "full")

    def sh(script: str) -> str:
        done = machine.try_shed("exec", "dev", "--", "sh", "-ec", f"{{ {script}; }} 2>&1")
        assert done.returncode == 0, done.stdout.decode()
        return done.stdout.decode().splitlines()[-1]

    assert sh("python3 -m pip install -q --no-cache-dir greeting; python3 -c 'import greeting'") == "hello from pip"
    assert sh("npm install -g greeting; greeting") == "hello from npm"
    source = f"echo 'deb [trusted=yes] http://{ARCHIVE}/debian ./' >/tmp/list"
    apt = "sudo apt-get -q -o Dir::Etc::sourcelist=/tmp/list -o Dir::Etc::sourceparts=-"
    assert sh(f"{source}; {apt} update; {apt} install -y greeting; greeting-of-apt") == "hello from apt"
