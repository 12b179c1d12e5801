"""The host's settings for mirrors of packages, in a real guest: its programs use them without anything to do."""

from __future__ import annotations

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.servers.netlab import lab
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
MIRROR, PUBLIC = "mirror.corp.example", "93.184.216.34"
WHEEL = "greeting-1.0-py3-none-any.whl"
SETTINGS = ("PIP_", "UV_", "NPM_CONFIG_", "npm_config_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


def make_index(web: Path) -> None:
    """Put an index of one package into the folder of a web server."""
    folder = web / "simple/greeting"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<!DOCTYPE html><html><body><a href="{WHEEL}">{WHEEL}</a></body></html>')
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("greeting.py", "print('hello from the mirror')\n")
        wheel.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("greeting-1.0.dist-info/RECORD", "")


def pip() -> bytes:
    """Return this environment's pip as a tar file: the image has Python alone."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(Path(sysconfig.get_path("purelib"), "pip"), "pip")
    return packed.getvalue()


def test_pip_takes_packages_from_the_mirror_of_the_host(way: str, base_store: LayoutStore, tmp_path: Path) -> None:
    """It is in the pip.conf of the server's user, and nobody else has the package; pip in the shed is told nothing."""
    machine = Machine(tmp_path / "machine", way=way)
    for name in [name for name in machine.environment if name.startswith(SETTINGS)]:
        del machine.environment[name]
    conf = tmp_path / "machine/.config/pip/pip.conf"
    conf.parent.mkdir(parents=True)
    url = f"http://{MIRROR}/simple"
    conf.write_text(f"[global]\nindex-url = {url}\nextra-index-url = {url}\ntrusted-host = {MIRROR}\n")
    copy_store(base_store, machine.data / "images")
    (tmp_path / "lab").mkdir()
    with lab(tmp_path / "lab", guest=False) as net:
        make_index(tmp_path / "lab/web")
        net.start_in_host(f"exec {sys.executable} -m shed.server.main serve 2>&1", **machine.environment)
        net.names({MIRROR: [PUBLIC]})
        try:
            machine.shed("create", "dev", "--image", "base")
            machine.shed("exec", "dev", "--", "tar", "-x", "-C", "/tmp", stdin=pip())
            words = "cd /tmp && python3 -m pip install -q --no-cache-dir --target /tmp/there greeting 2>&1"
            done = machine.try_shed("exec", "dev", "--", "sh", "-c", words)
            assert done.returncode == 0, done.stdout.decode()
            shown = machine.shed("exec", "dev", "--", "sh", "-c", "PYTHONPATH=/tmp/there python3 -c 'import greeting'")
            assert shown == "hello from the mirror\n"
        finally:
            machine.end()
