"""Takes a Linux kernel package apart: the bootable ELF file, its release, and what it was configured to do.

The boot protocol's header is described in Documentation/arch/x86/boot.rst of the kernel, the PVH entry note in QEMU's
and Xen's ``elfnote.h`` (XEN_ELFNOTE_PHYS32_ENTRY).
"""

from __future__ import annotations

import gzip
import lzma
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import lz4.block
import zstandard

from shed.errors import DataError
from shed.images.bootkit.debs import Deb
from shed.images.bootkit.elf import Elf
from shed.images.bootkit.modules import (
    EARLY,
    LATE,
    ON_DEMAND,
    Module,
    alias_table,
    check_release,
    load_order,
    module_name,
    parse_module,
)

XEN_ELFNOTE_PHYS32_ENTRY = 18
_HEADER_MAGIC = b"HdrS"
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_CHUNK = 8 << 20

EROFS_ALGORITHMS = {
    "lz4": "CONFIG_EROFS_FS_ZIP",
    "lzma": "CONFIG_EROFS_FS_ZIP_LZMA",
    "deflate": "CONFIG_EROFS_FS_ZIP_DEFLATE",
    "zstd": "CONFIG_EROFS_FS_ZIP_ZSTD",
}
"""EROFS compression algorithms, by the option that lets a kernel read them."""

REQUIRED = (
    "CONFIG_PVH", "CONFIG_EROFS_FS", "CONFIG_EROFS_FS_ZIP", "CONFIG_EROFS_FS_XATTR", "CONFIG_EROFS_FS_SECURITY",
    "CONFIG_EXT4_FS", "CONFIG_OVERLAY_FS", "CONFIG_9P_FS", "CONFIG_NET_9P_VIRTIO", "CONFIG_DEVTMPFS",
    "CONFIG_BLK_DEV_INITRD", "CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_BLK", "CONFIG_VIRTIO_CONSOLE", "CONFIG_VIRTIO_NET",
    "CONFIG_HW_RANDOM_VIRTIO", "CONFIG_SERIAL_8250_CONSOLE", "CONFIG_VMGENID",
)  # fmt: skip
"""Options that a shed's kernel must have, as a module or built in."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that QEMU, Firecracker and others start directly."""

    release: str
    """What ``uname -r`` says."""
    image: bytes
    """The uncompressed ELF file."""
    config: Mapping[str, str]
    """Set options, ``CONFIG_X`` to ``y``, ``m`` or a value."""

    @property
    def erofs_algorithms(self) -> list[str]:
        """EROFS compression algorithms that this kernel reads."""
        return [name for name, option in EROFS_ALGORITHMS.items() if option in self.config]


def load_kernel(*, release: str, bzimage: bytes, config: str) -> Kernel:
    """Unpack and check a kernel of a package.  Raises `DataError` when it cannot run a shed."""
    options = parse_config(config)
    missing = [option for option in REQUIRED if options.get(option) not in ("y", "m")]
    if missing:
        raise DataError(
            f"kernel {release} lacks {', '.join(missing)}", hint="use Debian's generic kernel, not a cloud flavour"
        )
    image = unpack_bzimage(bzimage)
    check_pvh(image)
    if f"Linux version {release} ".encode() not in image:
        raise DataError(f"the kernel image is not release {release}")
    return Kernel(release, image, options)


def parse_config(text: str) -> dict[str, str]:
    """Return the options that a kernel's config file sets."""
    return {match[1]: match[2].strip('"') for match in re.finditer(r"^(CONFIG_\w+)=(.+)$", text, re.MULTILINE)}


def unpack_bzimage(bzimage: bytes) -> bytes:
    """Return the uncompressed kernel inside a bzImage.  Raises `DataError`."""
    if bzimage[0x202:0x206] != _HEADER_MAGIC or struct.unpack_from("<H", bzimage, 0x206)[0] < 0x208:
        raise DataError("not a bzImage of boot protocol 2.08 or newer")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    if len(payload) != length:
        raise DataError("the bzImage is cut short")
    (size,) = struct.unpack("<I", payload[-4:])
    image = _decompress(payload)
    if len(image) != size:
        raise DataError(f"the kernel unpacks to {len(image)} bytes, its header says {size}")
    return image


def check_pvh(image: bytes) -> int:
    """Return the physical address of the kernel's PVH entry.  Raises `DataError` when it has none."""
    for owner, kind, description in Elf(image, "the kernel").notes():
        if owner == b"Xen" and kind == XEN_ELFNOTE_PHYS32_ENTRY:
            return int.from_bytes(description, "little")
    raise DataError("the kernel has no PVH entry: it cannot be started directly", hint="it needs CONFIG_PVH")


def _decompress(payload: bytes) -> bytes:
    """Decompress a bzImage's payload; the size behind the stream is ignored.  Raises `DataError`."""
    try:
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return gzip.decompress(payload[:-4])
        if payload.startswith(_LZ4_LEGACY):
            return _decompress_lz4_legacy(payload[:-4])
    except (zstandard.ZstdError, lzma.LZMAError, lz4.block.LZ4BlockError, OSError, EOFError) as error:
        raise DataError(f"the kernel's payload is damaged: {error}") from None
    raise DataError(f"the kernel's payload is compressed in an unknown way ({payload[:4].hex()})")


def _decompress_lz4_legacy(payload: bytes) -> bytes:
    chunks = []
    at = len(_LZ4_LEGACY)
    while at + 4 <= len(payload):
        (length,) = struct.unpack_from("<I", payload, at)
        at += 4
        chunks.append(lz4.block.decompress(payload[at : at + length], uncompressed_size=_LZ4_CHUNK))
        at += length
    return b"".join(chunks)


_PARTS = (
    "fs/",
    "lib/",
    "crypto/",
    "net/",
    "arch/",
    "drivers/block/",
    "drivers/net/",
    "drivers/char/",
    "drivers/virtio/",
)
"""Folders of a package's modules in which those that we want can be, with all that they depend on."""


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """A kernel and its modules."""

    kernel: Kernel
    early: list[Module]
    """Modules to load before the agent starts, in this order."""
    late: list[Module]
    """Modules that the agent loads, in this order."""
    on_demand: list[Module]
    """Modules that the kernel asks for when they are used, and what those need."""
    aliases: str
    """By which names it asks for them, see `alias_table`."""


def read_kernel_package(deb: Deb) -> KernelPackage:
    """Return what is in the package `deb`.  Raises `DataError` when it lacks something that a shed needs."""
    release = deb.package.name.removeprefix("linux-image-")
    top = f"usr/lib/modules/{release}/"
    parts = tuple(f"{top}kernel/{part}" for part in _PARTS)
    alone = {f"boot/vmlinuz-{release}", f"boot/config-{release}", f"{top}modules.builtin"}
    files = {
        path: content
        for path, content in deb.members(lambda path: path in alone or path.startswith(parts))
        if isinstance(content, bytes)
    }
    if missing := sorted(alone - set(files)):
        raise DataError(f"{deb.package.name} has no {missing[0]}")
    builtin = frozenset(module_name(line) for line in files[f"{top}modules.builtin"].decode().split())
    paths = {module_name(path): path for path in files if ".ko" in path}

    def find(name: str) -> Module | None:
        return parse_module(paths[name], files[paths[name]]) if name in paths else None

    early = load_order(EARLY, find, builtin=builtin)
    late = load_order(LATE, find, builtin=builtin, loaded=early)
    on_demand = load_order(ON_DEMAND, find, builtin=builtin, loaded=[*early, *late])
    check_release([*early, *late, *on_demand], release)
    aliases = alias_table([module.name for module in on_demand], find, builtin=builtin, loaded=[*early, *late])
    kernel = load_kernel(
        release=release, bzimage=files[f"boot/vmlinuz-{release}"], config=files[f"boot/config-{release}"].decode()
    )
    return KernelPackage(kernel, early, late, on_demand, aliases)
