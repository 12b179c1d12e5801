"""The boot kit made from real packages: what is in it, and that it is the same each time."""

import re
import stat
import subprocess
from pathlib import Path

import pytest

from shed.erofs.checker import check
from shed.erofs.reader import Image
from shed.images.bootkit.build import build_kit
from shed.images.bootkit.kernel import check_pvh
from shed.images.bootkit.kit import Kit
from shed.images.bootkit.runtime import start_command
from shed.images.bootkit.upper import READY, SMALL
from shed.names import MAX_UPPER
from shed.oci.store import LayoutStore
from shed.progress import PhaseEvent, Progress
from shed.sheds.upper import template
from support.images.kit import CACHE


@pytest.fixture(scope="session")
def runtime_folder(kit_store: LayoutStore, kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runtime's files, without empty writable layers."""
    top = tmp_path_factory.mktemp("runtime")
    with Image.open(kit_store.blob_path(kit.runtime)) as image:
        for path, inode in image.walk():
            target = top / path.decode().lstrip("/")
            if stat.S_ISDIR(inode.mode):
                target.mkdir(exist_ok=True)
            elif stat.S_ISLNK(inode.mode):
                target.symlink_to(image.readlink(inode).decode())
            elif target.name != "upper.ext4":
                target.write_bytes(image.read(inode, 0, inode.size))
                target.chmod(inode.mode & 0o777)
    return top


def python(top: Path, code: str) -> str:
    """Run `code` as the guest would run the agent, and return what it prints."""
    command = [*start_command(top, top / "bin/python3"), "-I", "-S", "-B", "-X", "utf8", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": "/nowhere"}).stdout


@pytest.mark.slow
def test_the_same_packages_give_the_same_digests(kit: Kit, tmp_path: Path) -> None:
    """Built again in another place, all three blobs are equal."""
    again = build_kit(LayoutStore(tmp_path / "images"), cache=CACHE / "debs", progress=Progress())
    assert (again.kernel, again.initrd, again.runtime) == (kit.kernel, kit.initrd, kit.runtime)


def test_a_kit_that_is_there_is_not_built_again(kit_store: LayoutStore, kit: Kit) -> None:
    """Only the packages are looked at."""
    phases: list[str] = []
    progress = Progress(sink=lambda event: phases.append(event.name) if isinstance(event, PhaseEvent) else None)
    assert build_kit(kit_store, cache=CACHE / "debs", progress=progress) == kit
    assert phases == ["packages"]


def test_the_kernel_starts_directly_and_reads_our_images(kit_store: LayoutStore, kit: Kit) -> None:
    """It has a PVH entry, and LZ4 and zstd for EROFS."""
    assert check_pvh(kit_store.blob_path(kit.kernel).read_bytes())
    assert {"lz4", "zstd"} <= set(kit.erofs_algorithms)


def test_the_initrd_holds_what_it_lists_in_an_order_that_loads(
    kit_store: LayoutStore, kit: Kit, tmp_path: Path
) -> None:
    """Every module named is there; dependencies come first; what the runtime's mount needs is early."""
    data = kit_store.blob_path(kit.initrd).read_bytes()
    # Unpacked without the device node, which only root may make.
    subprocess.run(
        ["busybox", "cpio", "-i", "-d", "init", "bin/*", "modules/*"],
        cwd=tmp_path,
        input=data,
        check=True,
        capture_output=True,
    )
    early, late = ((tmp_path / "modules" / name).read_text().split() for name in ("early", "late"))
    assert {path.name for path in (tmp_path / "modules").glob("*.ko")} == {*early, *late}
    assert early.index("crc32c_generic.ko") < early.index("libcrc32c.ko") < early.index("erofs.ko")
    assert "virtio_blk.ko" in early
    assert {"ext4.ko", "overlay.ko", "9p.ko", "9pnet_virtio.ko", "virtio_net.ko", "virtio_rng.ko"} <= set(late)
    assert late.index("jbd2.ko") < late.index("ext4.ko")
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    release = kit.record["kernel_release"].encode()
    assert all(b"vermagic=" + release + b" " in path.read_bytes() for path in (tmp_path / "modules").glob("*.ko"))


def test_the_runtime_is_a_valid_image(kit_store: LayoutStore, kit: Kit) -> None:
    """It passes the checker."""
    assert check(kit_store.blob_path(kit.runtime)).inodes > 400


def test_the_runtime_brings_the_modules_that_it_offers(runtime_folder: Path, kit: Kit) -> None:
    """By the names that the kernel uses for a bridge, nftables and /dev/net/tun; each of this kernel, behind what it
    needs.
    """
    table = {
        name: modules
        for name, *modules in map(str.split, (runtime_folder / "modules/aliases").read_text().splitlines())
    }
    files = {path.stem: path.read_bytes() for path in (runtime_folder / "modules").glob("*.ko")}
    assert set(files) == {module for modules in table.values() for module in modules}
    assert table["rtnl_link_bridge"] == ["llc", "stp", "bridge"]
    assert table["nft_chain_2_nat"][-1] == "nft_chain_nat"
    assert table["char_major_10_200"] == ["tun"]
    assert all(b"vermagic=" + kit.record["kernel_release"].encode() + b" " in data for data in files.values())


def test_the_runtimes_python_uses_nothing_of_the_machine(runtime_folder: Path) -> None:
    """Every file whose code it maps, and every module it loads, is the runtime's own."""
    code = (
        "import asyncio, ctypes, json, os, pty, resource, socket, subprocess, sys, termios, zlib\n"
        "maps = {line.split()[-1] for line in open('/proc/self/maps') if '/' in line and 'x' in line.split()[1]}\n"
        "print(*(sorted(maps) + [m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)]), sep='\\n')"
    )
    files = python(runtime_folder, code).split()
    assert len(files) > 50
    assert [file for file in files if not file.startswith(str(runtime_folder))] == []


def test_the_agent_is_compiled_and_its_modules_load(runtime_folder: Path) -> None:
    """Each module of the agent comes from a .pyc that is never compared with its source."""
    code = (
        f"import sys, pkgutil, importlib; sys.path.insert(0, '{runtime_folder}/agent')\n"
        "import shed.guest\n"
        "for module in pkgutil.walk_packages(shed.guest.__path__, 'shed.guest.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        loaded = importlib.import_module(module.name)\n"
        "        print(loaded.__cached__, open(loaded.__cached__, 'rb').read()[4])"
    )
    lines = python(runtime_folder, code).splitlines()
    assert len(lines) > 10
    for line in lines:
        cached, flags = line.split()
        assert cached.startswith(str(runtime_folder))
        assert flags == "1", "hash-based, unchecked: PEP 552"


@pytest.mark.parametrize("size", [SMALL, *READY], ids=lambda size: f"{size >> 20}M")
def test_each_empty_writable_layer_is_a_clean_sparse_ext4(
    kit_store: LayoutStore, kit: Kit, tmp_path: Path, size: int
) -> None:
    """fsck finds nothing to repair, no kernel has inode tables left to zero, it can grow to the largest size, and takes
    hardly any disk.
    """
    path = template(tmp_path, kit_store.blob_path(kit.runtime), size)
    assert path.stat().st_size == size
    assert path.stat().st_blocks * 512 < 2 << 20
    subprocess.run(["e2fsck", "-f", "-n", path], check=True, capture_output=True)
    facts = subprocess.run(["dumpe2fs", path], check=True, capture_output=True, text=True).stdout
    value = {line.partition(":")[0]: line.partition(":")[2].strip() for line in facts.splitlines()}
    assert value["Filesystem volume name"] == "shed-upper"
    assert int(value["Block count"]) * 4096 == size
    groups = re.findall(r"^Group \d+: .*$", facts, re.MULTILINE)
    assert len(groups) == size // (128 << 20)
    assert all("ITABLE_ZEROED" in group for group in groups)
    descriptors_per_block = 4096 // int(value["Group descriptor size"])
    descriptor_blocks = -(-len(groups) // descriptors_per_block)
    assert (int(value["Reserved GDT blocks"]) + descriptor_blocks) * descriptors_per_block * (128 << 20) >= MAX_UPPER
    assert "resize_inode" in value["Filesystem features"]
