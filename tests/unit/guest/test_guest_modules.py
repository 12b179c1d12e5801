"""Kernel modules on demand: whom the kernel asks, what it is given, and the devices that stand ready."""

import stat
import subprocess
from pathlib import Path

import pytest

from shed.guest.configure.modules import load_on_demand
from support.guests.agent import SOURCE

ALIASES = "net_pf_16_proto_12 no_such_a no_such_b\nno_such_a no_such_a\n"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A runtime with the real script, a table, and a busybox that only says what it is asked to do."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/aliases").write_text(ALIASES)
    (tmp_path / "bin/busybox").write_text("#!/bin/sh\necho $*\n")
    (tmp_path / "bin/busybox").chmod(0o755)
    script = Path(SOURCE, "shed/guest/modprobe").read_text().replace("/run/shed-runtime", str(tmp_path))
    (tmp_path / "bin/modprobe").write_text(script)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "loaded", "status"),
    [
        ("net-pf-16-proto-12", ["no_such_a", "no_such_b"], 0),
        ("no_such_a", ["no_such_a"], 0),
        ("no-such", [], 1),
        ("*", [], 1),
    ],
)
def test_the_kernel_gets_what_it_asks_for(runtime: Path, name: str, loaded: list[str], status: int) -> None:
    """All that the name stands for, in order; nothing for a name that is not in the table, whatever characters it
    has.
    """
    done = subprocess.run(
        ["busybox", "sh", runtime / "bin/modprobe", "-q", "--", name], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert done.stdout.splitlines() == [f"insmod {runtime}/modules/{module}.ko" for module in loaded]


@pytest.mark.root
def test_devices_stand_ready(tmp_path: Path) -> None:
    """Everybody may open those that ordinary users need; one that is there already gets the right mode."""
    (tmp_path / "fuse").touch(mode=0o600)
    load_on_demand(str(tmp_path), str(tmp_path / "helper"))
    assert (tmp_path / "helper").read_text() == "/run/shed-runtime/bin/modprobe"
    assert stat.S_ISCHR((tmp_path / "net/tun").stat().st_mode)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("net/tun", "fuse", "loop-control")}
    assert modes == {"net/tun": 0o666, "fuse": 0o666, "loop-control": 0o600}
