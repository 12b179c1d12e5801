"""The jail around a real QEMU: what the kernel says of it while its guest works."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.backends.jail.plan import FIRST_USER
from shed.backends.qemu.diagnostics import QemuDiagnostics
from shed.backends.qemu.machines import PROGRAM
from shed.checks import Status
from shed.config.paths import Paths
from shed.linux.kernel import landlock_version
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def machine(way: str, small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with a shed ``plain``, and ``work`` that has a folder."""
    copy_store(small_store, tmp_path / "data/images")
    (tmp_path / "folder").mkdir()
    machine = Machine(tmp_path, way=way)
    machine.shed("create", "plain", "--image", "busybox")
    machine.shed("create", "work", "--image", "busybox", "--local-dir", str(tmp_path / "folder"))
    yield machine
    machine.end()


def status(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_what_a_restored_qemu_has_open(machine: Machine, tmp_path: Path) -> None:
    """Every QEMU: who it is, its namespaces, its root, and what it has open: its own upper layer to be written, what it
    shares with other sheds to be read.
    """
    pids = {name: int(machine.show(name)["pid"]) for name in ("plain", "work")}
    for name, pid in pids.items():
        seen = status(pid)
        assert {seen[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
        uid = os.geteuid() if name == "work" or os.geteuid() else FIRST_USER + pid
        assert seen["Uid"].split() == [str(uid)] * 4
        spaces = {path.name: path.readlink() for path in Path(f"/proc/{pid}/ns").iterdir()}
        own = {path.name for path in Path("/proc/self/ns").iterdir() if path.readlink() != spaces[path.name]}
        assert {"mnt", "net", "pid", "ipc", "uts", "cgroup"} <= own
        for folder in ("etc/shadow", "tmp", "var", "run", "home", "dev/net"):
            assert not os.path.lexists(f"/proc/{pid}/root/{folder}")
        writable = set()
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            path = descriptor.readlink()
            if path.is_relative_to(tmp_path) and _writes(pid, descriptor.name):
                writable.add(path.relative_to(tmp_path / "data").parts[:2])
        assert writable == {("uppers", name)}
        assert not [line for line in _maps(pid) if " rw-s " in line and str(tmp_path) in line]
    machine.shed("exec", "work", "--", "touch", "/workspace/made")
    assert (tmp_path / "folder/made").stat().st_uid == os.geteuid()


def test_doctor_starts_one(tmp_path: Path) -> None:
    """The row says who a real QEMU is in its jail, and which wall this kernel lacks."""
    (row,) = QemuDiagnostics(Paths(tmp_path, tmp_path), PROGRAM, "auto").jail()
    assert row.status is (Status.PASS if landlock_version() else Status.WARN)
    assert "without capabilities" in row.detail


def _writes(pid: int, descriptor: str) -> bool:
    found = re.search(r"^flags:\s*([0-7]+)$", Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(), re.MULTILINE)
    assert found is not None
    return bool(int(found[1], 8) & os.O_ACCMODE)


def _maps(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/maps").read_text().splitlines()
