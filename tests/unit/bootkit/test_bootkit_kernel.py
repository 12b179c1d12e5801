"""Unpacking a bzImage, and refusing kernels that cannot run a shed."""

import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import pytest
import zstandard

from shed.errors import DataError
from shed.images.bootkit.kernel import (
    REQUIRED,
    XEN_ELFNOTE_PHYS32_ENTRY,
    check_pvh,
    load_kernel,
    parse_config,
    unpack_bzimage,
)

RELEASE = "6.12.1+deb13-amd64"
ZSTD = zstandard.ZstdCompressor().compress
CONFIG = (
    "".join(f"{option}=m\n" for option in REQUIRED)
    + "CONFIG_EROFS_FS_ZIP_ZSTD=y\n# CONFIG_EROFS_FS_ZIP_LZMA is not set\n"
)


def vmlinux(note: int = XEN_ELFNOTE_PHYS32_ENTRY, release: str = RELEASE) -> bytes:
    """Return an ELF file with one Xen note and a kernel's banner."""
    notes = struct.pack("<III4sQ", 4, 8, note, b"Xen\0", 0x1000C43)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    return header + segment + notes + f"Linux version {release} (debian) #1".encode() + bytes(5000)


def lz4_legacy(data: bytes) -> bytes:
    """Compress as the kernel's build does: the legacy frame."""
    block: bytes = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


def bzimage(image: bytes, compress: Callable[[bytes], bytes] = ZSTD, size: int | None = None) -> bytes:
    """Return a bzImage with `image` in it, whose header claims `size`."""
    payload = compress(image) + struct.pack("<I", len(image) if size is None else size)
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x208] = b"HdrS" + struct.pack("<H", 0x20F)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload


@pytest.mark.parametrize("compress", [ZSTD, lzma.compress, gzip.compress, lz4_legacy])
def test_every_compression_that_kernels_are_built_with_is_unpacked(compress: Callable[[bytes], bytes]) -> None:
    """zstd, xz, gzip and lz4."""
    assert unpack_bzimage(bzimage(vmlinux(), compress)) == vmlinux()


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"not a kernel" * 100, "not a bzImage"),
        (bzimage(vmlinux())[:-100], "cut short"),
        (bzimage(vmlinux(), size=12), "its header says 12"),
        (bzimage(vmlinux(), lambda data: b"\xde\xad\xbe\xef" + data), "unknown way"),
        (bzimage(vmlinux(), lambda data: b"\x28\xb5\x2f\xfd" + data), "damaged"),
    ],
)
def test_a_damaged_bzimage_is_refused(damaged: bytes, message: str) -> None:
    """No traceback, whatever is broken."""
    with pytest.raises(DataError, match=message):
        unpack_bzimage(damaged)


def test_the_pvh_entry_is_found_or_its_absence_told() -> None:
    """QEMU cannot start an ELF kernel without it."""
    assert check_pvh(vmlinux()) == 0x1000C43
    with pytest.raises(DataError, match="no PVH entry"):
        check_pvh(vmlinux(note=5))


def test_a_kernel_says_which_erofs_algorithms_it_reads() -> None:
    """LZ4 with plain ZIP support; zstd because its option is set; LZMA not."""
    kernel = load_kernel(release=RELEASE, bzimage=bzimage(vmlinux()), config=CONFIG)
    assert kernel.erofs_algorithms == ["lz4", "zstd"]


def test_a_kernel_without_9p_is_refused_by_name_of_the_option() -> None:
    """Debian's cloud flavour is such a kernel."""
    config = CONFIG.replace("CONFIG_9P_FS=m", "# CONFIG_9P_FS is not set")
    with pytest.raises(DataError, match="lacks CONFIG_9P_FS") as caught:
        load_kernel(release=RELEASE, bzimage=bzimage(vmlinux()), config=config)
    assert "cloud" in (caught.value.hint or "")


def test_an_image_of_another_release_is_refused() -> None:
    """The modules beside it would not load."""
    with pytest.raises(DataError, match="not release"):
        load_kernel(release=RELEASE, bzimage=bzimage(vmlinux(release="6.11.0")), config=CONFIG)


def test_config_files_are_parsed() -> None:
    """Strings lose their quotes; options that are not set are absent."""
    assert parse_config('CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\n') == {"CONFIG_A": "y", "CONFIG_C": "x y"}
