"""The fourth way to read our writer's images: by the kit's own kernel, inside a booted guest.

Each image is one more disk of a guest of the busybox image.  A Python script there mounts it, reads every file, and
sends back the records that the host compares with what went in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from shed.backends.base import Connection, Disk, Machine
from shed.backends.qemu.backend import QemuBackend
from shed.config.paths import Paths
from shed.entries import Entry
from shed.erofs.writer import Compression, WriterOptions, write_image
from shed.guest.protocol import (
    DATA_FRAME,
    EXEC_REQUEST,
    EXIT_CODE,
    PORT_EXEC,
    STDERR,
    STDIN_EOF,
    FrameDecoder,
    exec_frame,
)
from shed.images.bootkit.kit import load_kit
from shed.images.bootkit.runtime import MOUNT_POINT
from shed.images.resolve import BootImage, resolve_image
from shed.oci.store import LayoutStore
from shed.sheds import upper
from shed.sheds.agent import control
from support.erofs import tree_record
from support.erofs.records import differences, record_entries
from support.erofs.tree_record import Record
from support.erofs.trees import TREES, folder

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

DATA_TREES = ("holes", "mixed", "sizes", "twins")
"""The trees that differ with the writer's settings; all others are read once."""
WRITERS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "lz4": ("lz4", 64 << 10, tuple(sorted(TREES))),
    "lz4-4k": ("lz4", 4 << 10, DATA_TREES),
    "zstd": ("zstd", 16 << 10, DATA_TREES),
    "none": ("none", 4 << 10, ("sizes",)),
}
"""Compression, cluster size, and trees of each image."""
FIRST_DISK = "d"
PYTHON = [
    f"{MOUNT_POINT}/lib/ld-linux-x86-64.so.2",
    "--library-path",
    f"{MOUNT_POINT}/lib",
    f"{MOUNT_POINT}/bin/python3",
    "-I",
    "-S",
    "-",
]
SCRIPT = f"""
import base64, os, subprocess, sys, zlib
{Path(tree_record.__file__).read_text().partition('if __name__ == "__main__":')[0]}
device = {{device!r}}
os.makedirs("/mnt/image", exist_ok=True)
subprocess.run([{MOUNT_POINT + "/bin/busybox"!r}, "mount", "-t", "erofs", "-o", "ro", device, "/mnt/image"], check=True)
print(base64.b64encode(zlib.compress(json.dumps(record_folder(b"/mnt/image")).encode())).decode())
subprocess.run([{MOUNT_POINT + "/bin/busybox"!r}, "umount", "/mnt/image"], check=True)
"""


def side_by_side(names: Iterable[str], cluster: int) -> list[Entry]:
    """Return generated trees, each in a folder of its name."""
    entries = [folder("")]
    for name in names:
        for entry in TREES[name](cluster):
            entry.path = name.encode() + b"/" + entry.path if entry.path else name.encode()
            if entry.link is not None:
                entry.link = name.encode() + b"/" + entry.link
            entries.append(entry)
    return entries


def make_disks(target: Path, algorithms: Iterable[str]) -> dict[str, tuple[Path, dict[str, Record]]]:
    """Return an image for each writer whose algorithm the guest's kernel reads, and what must be in it."""
    made = {}
    for name, (compression, cluster, trees) in WRITERS.items():
        if compression not in (*algorithms, "none"):
            continue
        entries = side_by_side(trees, cluster)
        with (target / name).open("w+b") as out:
            write_image(entries, out, WriterOptions(compression=Compression.parse(compression), cluster_size=cluster))
        made[name] = (target / name, record_entries(entries))
    return made


async def read_in_guest(image: BootImage, disks: list[Path], work: Path) -> list[dict[str, Record]]:
    """Boot `image` with more `disks` and return the records of what is on each."""
    paths = Paths(work / "data", work / "run")
    for place in (paths.templates, paths.instances / "reader", paths.run):
        place.mkdir(parents=True)
    layer = work / "upper" / "upper.ext4"
    upper.make_upper(upper.template(paths.templates, image.runtime, 1 << 30), layer, 1 << 30)
    own = (Disk(layer, read_only=False), Disk(image.root, read_only=True), Disk(image.runtime, read_only=True))
    state = paths.instances / "reader"
    machine = Machine(
        "reader", 1, 768, image.kernel, image.initrd, (*own, *(Disk(disk, read_only=True) for disk in disks)), state
    )
    backend = QemuBackend(paths)
    await backend.start(machine)
    try:
        connection = await backend.connect(state, timeout=120)
        try:
            await control(connection, "configure", wait=120, **configuration())
            return [
                await record_disk(connection, f"/dev/vd{chr(ord(FIRST_DISK) + number)}") for number in range(len(disks))
            ]
        finally:
            await connection.close()
    except BaseException as error:
        console = state / "console.log"
        error.add_note(console.read_text(errors="replace")[-3000:] if console.exists() else "no console")
        raise
    finally:
        await backend.kill(state)


def configuration() -> dict[str, object]:
    entropy = base64.b64encode(os.urandom(64)).decode()
    fixed: dict[str, object] = {
        "name": "reader",
        "hostname": "reader",
        "upper_size": 1 << 30,
        "network": None,
        "mounts": [],
        "env": {},
    }
    return {
        **fixed,
        "clock": time.time(),
        "entropy": entropy,
        "init": "agent",
        "user": "root",
        "workspace": "/workspace",
    }


async def record_disk(connection: Connection, device: str) -> dict[str, Record]:
    """Run the script in the guest for one disk."""
    stream = await connection.open(PORT_EXEC)
    request = {"cmd": PYTHON, "user": "root"}
    await stream.write(exec_frame(EXEC_REQUEST, json.dumps(request).encode()))
    await stream.write(
        exec_frame(DATA_FRAME, SCRIPT.replace("{device!r}", repr(device)).encode()) + exec_frame(STDIN_EOF)
    )
    decoder, output, complaints = FrameDecoder(), bytearray(), bytearray()
    while data := await stream.read():
        decoder.feed(data)
        while frame := decoder.frame():
            kind, payload = frame
            if kind == DATA_FRAME:
                output += payload
            elif kind == STDERR:
                complaints += payload
            elif kind == EXIT_CODE:
                assert json.loads(payload)["code"] == 0, complaints.decode(errors="replace")
    stream.close()
    records = json.loads(zlib.decompress(base64.b64decode(output)))
    assert isinstance(records, dict)
    return records


def test_a_guest_reads_what_was_written(small_store: LayoutStore, tmp_path: Path) -> None:
    """Every tree with every writer's settings that the kit's kernel can read."""
    image = resolve_image(small_store, "busybox")
    disks = make_disks(tmp_path, load_kit(small_store).record["erofs_algorithms"])
    assert {"lz4", "lz4-4k", "none"} <= disks.keys()
    records = asyncio.run(read_in_guest(image, [path for path, _ in disks.values()], tmp_path / "vm"))
    for (name, (_, wanted)), found in zip(disks.items(), records, strict=True):
        assert differences(found, wanted) == [], name
    shutil.rmtree(tmp_path / "vm")
