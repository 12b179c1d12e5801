"""A scope for a VM, made by a real systemd: it bounds what was asked, and is no part of the server's unit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.tools.private_systemd import private_systemd

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
_PLACE = """
import json, subprocess, sys
from shed.backends.qemu import budget, groups
from shed.errors import BackendError
process = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    groups.Groups(groups.Way.SYSTEM).place(process.pid, "dev-1", budget.plan(2, 256, "kvm"))
    said = ""
except BackendError as error:
    said = error.message
print(json.dumps({"pid": process.pid, "group": groups.group_of(process.pid), "said": said}))
"""


def test_a_process_gets_a_scope_of_its_own(tmp_path: Path) -> None:
    """It is there when `place` returns, with each bound; where its controllers are of version 1, that is refused.
    Fails on 6aee119.
    """
    with private_systemd(tmp_path / "systemd") as systemd:
        placed = json.loads(systemd.run(sys.executable, "-c", _PLACE, env={"PATH": "/usr/bin:/bin"}))
        assert placed["group"].endswith("/shed.slice/shed-dev-1.scope")
        names = ("MemoryMax", "MemorySwapMax", "TasksMax", "CPUQuotaPerSecUSec", "Slice", "ActiveState")
        shown = systemd.run("systemctl", "show", "shed-dev-1.scope", *(f"--property={name}" for name in names))
        assert set(shown.split()) == {
            f"MemoryMax={(256 + 512) << 20}",
            f"MemorySwapMax={256 << 20}",
            "TasksMax=258",
            "CPUQuotaPerSecUSec=3s",
            "Slice=shed.slice",
            "ActiveState=active",
        }
        version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        assert placed["said"] == (
            "" if version_2 else "no control group for a VM: the controller memory is not at work for VMs"
        )
        systemd.run("kill", "-9", str(placed["pid"]))
        systemd.wait("LoadState=not-found", "systemctl", "show", "--property=LoadState", "shed-dev-1.scope")
