"""Disks, overlay, the move into the new root, identity: the real thing, with this host's kernel, in a mount namespace
of its own.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shed.entries import Entry
from shed.erofs.writer import write_image
from shed.guest.configure import steps
from support.guests.agent import SOURCE

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts"),
    pytest.mark.skipif(
        "erofs" not in Path("/proc/filesystems").read_text() or not shutil.which("mke2fs"),
        reason="no EROFS or mke2fs here",
    ),
]
MIB = 1 << 20
CAN_GROW = bool(int(re.findall(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())[0], 16) >> 24 & 1)
"""Growing a mounted ext4 needs CAP_SYS_RESOURCE, which not every root has."""


class Bytes:
    """A file's contents."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def pread(self, length: int, offset: int) -> bytes:
        """As a file."""
        return self.data[offset : offset + length]


def write_root(path: Path, extra: dict[bytes, bytes] | None = None) -> None:
    """An image's root with little in it; no /proc, /sys, /dev, /run, /tmp."""
    files = {
        b"from-image": b"image",
        b"etc/ssh/ssh_host_rsa_key": b"baked in",
        b"etc/ssh/ssh_config": b"",
        b"dir/file": b"x",
        b"etc/localtime": b"->/usr/share/zoneinfo/Etc/UTC",
        b"usr/share/zoneinfo/Asia/Tokyo": b"TZif",
        **(extra or {}),
    }
    folders = {b"", b"var"} | {name[:at] for name in files for at in range(len(name)) if name[at : at + 1] == b"/"}
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in folders]
    for name, data in files.items():
        if data.startswith(b"->"):
            entries.append(Entry(name, stat.S_IFLNK | 0o777, target=data[2:]))
        else:
            entries.append(Entry(name, stat.S_IFREG | 0o644, size=len(data), content=Bytes(data) if data else None))
    with path.open("w+b") as out:
        write_image(sorted(entries, key=lambda entry: entry.path.split(b"/")), out)


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    """A folder with a fresh upper, smaller than its disk, and a root."""
    with (tmp_path / "vda").open("wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-F", str(tmp_path / "vda")], check=True)
    if CAN_GROW:
        os.truncate(tmp_path / "vda", 200 * MIB)
    write_root(tmp_path / "vdb")
    return tmp_path


def start(folder: Path) -> dict[str, Any]:
    """Go through a start and return what was seen, or the numbered failure."""
    script = Path(__file__).parents[2] / "support/guests/configure_process.py"
    done = subprocess.run(
        ["unshare", "--mount", "--uts", "--propagation", "private",
         sys.executable, "-I", str(script), str(SOURCE), str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    loops = subprocess.run(
        ["losetup", "--noheadings", "--output", "NAME,BACK-FILE"], capture_output=True, check=True, text=True
    ).stdout
    for line in loops.splitlines():
        name, _, file = line.partition(" ")
        if file.strip().startswith(str(folder)):
            subprocess.run(["losetup", "--detach", name], check=True)
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


def test_a_first_start_and_a_second(disks: Path) -> None:
    """The upper grows and keeps what is written; identity is settled once; what came with the image of it is gone."""
    first = start(disks)
    assert first["upper_size"] > (150 if CAN_GROW else 15) * MIB
    assert first["from_image"] == "image"
    assert first["new"] is True
    assert first["runtime"] == "runtime"
    assert first["ssh"] == ["ssh_config"]
    assert first["hosts"].endswith("127.0.1.1\tdemo\n")
    assert {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/run/shed-runtime", "/sys/fs/cgroup"} <= set(
        first["mounts"]
    )
    assert {"proc", "sys", "dev", "run", "tmp"} <= set(first["root"])
    second = start(disks)
    assert second["kept"] == "written before"
    assert second["new"] is False
    assert second["machine_id"] == first["machine_id"]
    assert first["zone"] == "/usr/share/zoneinfo/Asia/Tokyo"
    assert len(first["machine_id"].strip()) == 32


def test_what_is_deleted_goes_back_to_the_host(disks: Path) -> None:
    """The file of the upper gets holes where a deleted file was, without anybody asking for it."""
    assert start(disks)["given_back"] > 4 * MIB


def test_the_journal_is_empty_after_a_freeze(disks: Path) -> None:
    """What poweroff relies on: the next mount recovers nothing."""
    start(disks)
    features = subprocess.run(["dumpe2fs", "-h", str(disks / "vda")], capture_output=True, check=True, text=True).stdout
    assert "needs_recovery" not in features


def test_what_an_interrupted_start_left_in_the_work_folder_is_wiped(disks: Path) -> None:
    """Files and folders in it would make the overlay fail."""
    start(disks)
    subprocess.run(["debugfs", "-w", "-R", "mkdir work/work/left", str(disks / "vda")], check=True, capture_output=True)
    subprocess.run(["debugfs", "-w", "-R", "mkdir work/#3", str(disks / "vda")], check=True, capture_output=True)
    assert start(disks)["kept"] == "written before"


@pytest.mark.parametrize(("name", "code"), [("vda", steps.UPPER_MISSING), ("vdb", steps.ROOT_MISSING)])
def test_a_missing_disk(disks: Path, name: str, code: str) -> None:
    """Numbered, and the disk is named."""
    (disks / name).unlink()
    answer = start(disks)
    assert answer["code"] == code
    assert name in answer["error"]


def test_a_corrupt_upper_is_never_formatted(disks: Path) -> None:
    """A zeroed head is a failure, and the rest of the disk is as before."""
    data = bytearray((disks / "vda").read_bytes())
    data[: 64 * 1024] = bytes(64 * 1024)
    (disks / "vda").write_bytes(data)
    assert start(disks)["code"] == steps.UPPER_CORRUPT
    assert (disks / "vda").read_bytes() == data


def test_an_upper_that_cannot_be_mounted(disks: Path) -> None:
    """The magic is there and nothing else makes sense."""
    with (disks / "vda").open("r+b") as file:
        file.seek(1024 + 0x18)
        file.write(b"\xff" * 4)
    assert start(disks)["code"] == steps.UPPER_MOUNT


def test_a_root_that_is_no_erofs(disks: Path) -> None:
    """A disk of zeros."""
    (disks / "vdb").write_bytes(bytes(MIB))
    answer = start(disks)
    assert answer["code"] == steps.ROOT_MOUNT


def test_an_overlay_that_cannot_be(disks: Path) -> None:
    """A file where the upper's folder should be."""
    subprocess.run(["debugfs", "-w", "-R", "write /dev/null data", str(disks / "vda")], check=True, capture_output=True)
    assert start(disks)["code"] == steps.OVERLAY


@pytest.mark.parametrize("target", [b"->var/tmp", b"->/var/tmp", b"->../../var/tmp", b"->var/missing/tmp", b"->tmp"])
def test_an_image_whose_tmp_is_a_link(disks: Path, target: bytes) -> None:
    """It stays one, and leads to a folder where everybody can write; one that leads nowhere is no start's end."""
    write_root(disks / "vdb", {b"tmp": target, b"var/tmp/.keep": b"x"})
    for _ in range(2):
        seen = start(disks)
        assert seen["tmp"] == ("loop" if target == b"->tmp" else target[2:].decode())


@pytest.mark.parametrize("target", [b"->var/run", b"->/var/run", b"->var/lib/run"])
def test_an_image_whose_run_is_a_link(disks: Path, target: bytes) -> None:
    """/run is a folder of the machine's own, and shows where the link of the image led, too: at each start."""
    write_root(disks / "vdb", {b"run": target, b"var/run/.keep": b"x"})
    for _ in range(2):
        seen = start(disks)
        assert seen["runtime"] == "runtime"
        assert seen["var_run"] == ("" if b"lib" in target else "runtime")


def test_an_image_that_leads_us_out(disks: Path) -> None:
    """A link where /dev should be is no place to move /dev to."""
    write_root(disks / "vdb", {b"dev": b"->/somewhere"})
    answer = start(disks)
    assert answer["code"] == steps.HAND_OVER
    assert "/dev" in answer["error"]
