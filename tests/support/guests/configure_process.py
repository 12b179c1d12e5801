"""The mounting half of a start, on this host: run as root in a mount namespace of its own (`unshare -m -u`), with loop
devices as disks.

Arguments: the source folder, and the folder with the disks ``vda`` and ``vdb``.  Prints one JSON object.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from shed.guest import syscalls, wirejson
from shed.guest.configure import disks, identity, overlay, steps
from shed.guest.configure.steps import Places, StepError


def attach(file: Path) -> str:
    """Return a loop device that vanishes with its last user."""
    done = subprocess.run(["losetup", "--find", "--show", str(file)], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def machine(folder: Path) -> Places:
    """Set the disks up like a machine's, below `folder`/machine."""
    base = folder / "machine"
    dev = base / "dev"
    dev.mkdir(parents=True, exist_ok=True)
    syscalls.mount("machine", str(base), "tmpfs")
    dev.mkdir()
    for name in ("vda", "vdb"):
        if (folder / name).exists():
            (dev / name).symlink_to(attach(folder / name))
    places = Places(str(base), str(dev))
    Path(places.runtime).mkdir(parents=True)
    syscalls.mount("runtime", places.runtime, "tmpfs")
    Path(places.runtime, "sign").write_text("runtime")
    Path(places.modules).mkdir(parents=True)
    Path(places.modules, "loaded").touch()
    Path(places.modules, "big.ko").touch()
    return places


def tmp() -> str:
    """Return where /tmp leads, ``folder`` if it is one; make a file in it."""
    if Path("/tmp").is_symlink() and not Path("/tmp").is_dir():
        return "loop"
    Path("/tmp/file").touch()
    assert Path("/tmp").stat().st_mode & 0o7777 in {0o1777, 0o755}, "what the image has keeps its mode"
    return str(Path("/tmp").readlink()) if Path("/tmp").is_symlink() else "folder"


def given_back(disk: int) -> int:
    """Return how many bytes the disk's file, which is open, loses when 8 MiB in it are deleted."""
    Path("/var/big").write_bytes(os.urandom(8 << 20))
    os.sync()
    before = os.fstat(disk).st_blocks
    Path("/var/big").unlink()
    os.sync()
    for _ in range(200):  # ext4 discards in the background, after its commit
        if os.fstat(disk).st_blocks < before:
            break
        time.sleep(0.05)
    return (before - os.fstat(disk).st_blocks) * 512


def start(folder: Path) -> dict[str, object]:
    """Go all the way and look around."""
    places = machine(folder)
    disks.await_modules(places.modules)
    overlay.mount_devices(places)
    upper = disks.mount_upper(places)
    disk = os.open(folder / "vda", os.O_RDONLY)  # the root is another one, later
    size = os.fstatvfs(upper).f_blocks * os.fstatvfs(upper).f_frsize
    disks.mount_root(places)
    overlay.mount_overlay(places)
    overlay.enter(places)
    new = identity.settled_name("") != "demo"
    if new:
        identity.settle("", "demo", "Asia/Tokyo")
    seen = {
        "upper_size": size,
        "new": new,
        "root": sorted(path.name for path in Path("/").iterdir()),
        "from_image": steps.read_file("/from-image"),
        "kept": steps.read_file("/var/kept"),
        "runtime": steps.read_file("/run/shed-runtime/sign"),
        "var_run": steps.read_file("/var/run/shed-runtime/sign"),
        "tmp": tmp(),
        "given_back": given_back(disk),
        "zone": str(Path("/etc/localtime").readlink()),
        "machine_id": steps.read_file("/etc/machine-id"),
        "hosts": steps.read_file("/etc/hosts"),
        "ssh": sorted(path.name for path in Path("/etc/ssh").iterdir()),
        "mounts": [line.split()[1] for line in steps.read_file("/proc/self/mounts").splitlines()],
    }
    steps.make_folder("/var/lib/shed")
    steps.write_file("/var/kept", "written before")
    steps.write_file("/var/lib/shed/identity.json", wirejson.dumps({"name": "demo"}).decode())
    Path("/dir").rename("/renamed").rename("/dir")  # folders of the image can be renamed
    syscalls.freeze(upper)
    fcntl.ioctl(upper, 0xC0045878, 0)  # FITHAW: the namespace must be able to go
    return seen


try:
    answer = start(Path(sys.argv[2]))
except StepError as error:
    answer = {"code": error.code, "error": str(error)}
sys.stdout.write(json.dumps(answer))
