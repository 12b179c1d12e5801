"""The wheel and the Debian package: made twice, and the latter installed, upgraded, removed and purged in a clean
Debian.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shed.version import VERSION
from support.images.debian_root import DebianRoot

ROOT = Path(__file__).parents[2]
DATED = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}


def build(output: Path) -> Path:
    """Build the Debian package in `output`."""
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/build_deb.py", output],
        env=DATED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def with_version(package: Path, version: str) -> Path:
    """Return the package with another version, its own and that of the program."""
    tree = package.with_name(version)
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    for path, pattern in (
        (tree / "DEBIAN/control", "Version: {}\n"),
        (tree / "usr/lib/shed/lib/shed/shed/version.py", 'VERSION = "{}"\n'),
    ):
        text = path.read_text()
        assert pattern.format(VERSION) in text
        path.write_text(text.replace(pattern.format(VERSION), pattern.format(version)))
    result = package.with_name(f"{version}.deb")
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", tree, result], check=True, stdout=subprocess.DEVNULL)
    return result


def stand_in(folder: Path, name: str) -> Path:
    """Return an empty package that takes the place of one: no VM is started in there, and QEMU has 100 MB."""
    control = folder / name / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    fields = {
        "Package": name,
        "Version": "1",
        "Architecture": "amd64",
        "Maintainer": "T <t@shed.invalid>",
        "Description": "none",
    }
    control.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    subprocess.run(["dpkg-deb", "--build", control.parents[1]], check=True, stdout=subprocess.DEVNULL)
    return folder / f"{name}.deb"


def test_a_wheel_is_the_same_twice_and_complete(tmp_path: Path) -> None:
    """Every file of the sources is in it, and the two commands."""
    wheels: list[Path] = []
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / name],
            cwd=ROOT,
            env=DATED,
            check=True,
        )
        wheels += (tmp_path / name).iterdir()
    assert wheels[0].name == f"shed-{VERSION}-py3-none-any.whl"
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
        scripts = wheel.read(f"shed-{VERSION}.dist-info/entry_points.txt").decode()
    source = ROOT / "src"
    assert {
        str(path.relative_to(source))
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } <= names
    assert re.findall(r"^(\S+) = ", scripts, re.MULTILINE) == ["shed", "shed-server"]


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(900)
def test_a_debian_package_from_install_to_purge(tmp_path: Path) -> None:
    """It needs QEMU, works, restarts its service into a valid configuration only, keeps what people wrote, and goes
    without the data.
    """
    package = build(tmp_path)
    assert package.name == f"shed-server_{VERSION}_amd64.deb"
    first = package.read_bytes()
    assert build(tmp_path).read_bytes() == first
    root = DebianRoot(tmp_path / "root")
    systemctl, config = root.systemctl, root.folder / "etc/shed/server.yaml"

    def install(path: Path) -> str:
        os.link(path, root.folder / path.name)
        return root.must("dpkg", "--force-confdef", "--install", f"/{path.name}")

    os.link(package, root.folder / "shed.deb")
    refused = root.run("dpkg", "--install", "/shed.deb")
    assert "shed-server depends on qemu-system-x86; however" in refused.stderr
    assert systemctl.calls() == []
    for needed in ("qemu-system-x86", "nftables"):
        install(stand_in(tmp_path, needed))
    root.must("dpkg", "--configure", "--pending")
    assert systemctl.calls() == ["preset", "daemon-reload", "start"]
    assert list((root.folder / "usr/lib/shed/lib/shed/shed/cli/__pycache__").glob("main.*.pyc"))

    assert root.must("shed", "version") == f"shed {VERSION}\n"
    doctor = root.run("shed-server", "doctor", "--json")
    rows = {row["name"]: row for row in json.loads(doctor.stdout)["checks"]}
    assert (doctor.returncode, [name for name, row in rows.items() if row["status"] == "FAIL"]) == (
        1,
        ["vmm", "network"],
    )
    assert rows["service"]["detail"] == "/usr/lib/systemd/system/shed-server.service is active"
    assert rows["configuration"]["detail"] == "/etc/shed/server.yaml is valid"
    program = root.folder / "usr/lib/shed/lib/shed"
    for path in (ROOT / "src").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert os.access(program / path.relative_to(ROOT / "src"), os.X_OK) == os.access(path, os.X_OK), path
    listed = root.must(
        "sh", "-c", "shed list && shed server status && shed-server doctor | tail -1; shed server stop"
    )  # Debian's Python
    assert listed.startswith("NAME")
    assert f"{VERSION} answers at /run/shed/shed.sock" in listed
    precious = root.folder / "var/lib/shed/qemu/uppers/dev/upper.ext4"
    precious.parent.mkdir(parents=True)
    precious.write_text("work of a week")

    profile, parser = root.folder / "etc/apparmor.d/shed-server", root.folder / "usr/sbin/apparmor_parser"
    assert not profile.exists()  # no AppArmor here
    (profile.parent / "abi").mkdir(parents=True)
    (profile.parent / "abi/4.0").touch()
    parser.write_text('#!/bin/sh\necho "$@" >>/parsed\n')
    parser.chmod(0o755)
    systemctl.calls()
    config.write_text("name: mine\n")
    install(with_version(package, "9.0.0"))
    assert root.must("shed", "version") == "shed 9.0.0\n"
    assert (systemctl.calls(), config.read_text()) == (["daemon-reload", "restart"], "name: mine\n")
    config.write_text("nmae: mine\n")
    said = install(with_version(package, "9.0.1"))
    assert "unknown key 'nmae'" in said
    assert profile.read_bytes() == (ROOT / "packaging/deb/apparmor").read_bytes()
    assert "its configuration is not valid, so the server was not started again" in said
    assert (systemctl.calls(), systemctl.state()) == (["daemon-reload"], "active")

    root.must("dpkg", "--remove", "shed-server")
    assert (systemctl.calls(), systemctl.state()) == (["stop", "daemon-reload"], "inactive")
    assert not (root.folder / "usr/lib/shed").exists()
    assert not profile.exists()
    loaded = "-r -T -W /etc/apparmor.d/shed-server"
    assert (root.folder / "parsed").read_text().splitlines() == [loaded, loaded, "-R /etc/apparmor.d/shed-server"]
    assert not (root.folder / "usr/bin/shed").is_symlink()
    assert config.exists()
    assert "sheds and images stay in /var/lib/shed" in root.must("dpkg", "--purge", "shed-server")
    left = {str(path.relative_to(root.folder)) for path in root.folder.glob("[eu]*/**/*shed*")}
    assert left == set()
    assert precious.read_text() == "work of a week"
