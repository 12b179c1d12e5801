"""Makes the empty ext4 file systems that the writable layers of sheds start as, one of each size that many will want.

A shed of another size gets the next smaller one, which grows while mounted: its group descriptors have room for that.
Nothing in them depends on the machine or the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shed.run import Argument, run

SMALL = 256 << 20
"""Bytes of the one that older hosts take, whatever size they want."""
READY = tuple(gib << 30 for gib in (1, 2, 5, 10, 20, 50, 100))
"""Bytes of the others."""
ROOM = 128 << 30
"""Bytes that each can grow to: more than a shed may have, because mke2fs refuses to leave room for no more than there
is.
"""
LABEL = "shed-upper"
_BLOCK = 4096
_JOURNAL_MB = 32
_UUID = "5ed00000-0000-4000-8000-000000000001"
"""All uppers have the same: nothing mounts them by UUID, and two are never in one machine."""
_CONFIG = """\
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
enable_periodic_fsck = 0
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
small = {
}
ext4 = {
features = has_journal,extent,huge_file,flex_bg,metadata_csum,metadata_csum_seed,64bit,dir_nlink,extra_isize
}
"""
"""Our own mke2fs.conf, so that no machine's own has a say."""


def mke2fs_arguments(target: Path, size: int) -> list[str]:
    """Return the arguments of mke2fs for a file system of `size` bytes in `target`."""
    extended = ",".join([
        f"hash_seed={_UUID}", f"resize={ROOM // _BLOCK}", "root_owner=0:0",
        "lazy_itable_init=1", "lazy_journal_init=1", "assume_storage_prezeroed=1", "nodiscard",
    ])  # fmt: skip
    return [
        "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-L", LABEL, "-U", _UUID, "-m", "0",
        "-J", f"size={_JOURNAL_MB}", "-E", extended, str(target), f"{size // _BLOCK}",
    ]  # fmt: skip


def make_uppers(folder: Path, program: bytes, libraries: Mapping[str, bytes], loader: str) -> dict[int, Path]:
    """Make them all in the new folder `folder`; return sparse files by their sizes in bytes.

    `program` is mke2fs; it runs through `loader`, one of `libraries`, so that the host's own libraries do not matter.
    Raises `ToolError` when it fails.
    """
    folder.mkdir()
    for name, data in {**libraries, "mke2fs": program, "mke2fs.conf": _CONFIG.encode()}.items():
        (folder / name).write_bytes(data)
    (folder / loader).chmod(0o755)
    start: list[Argument] = [folder / loader, "--inhibit-cache", "--library-path", folder, folder / "mke2fs"]
    env = {"MKE2FS_CONFIG": str(folder / "mke2fs.conf"), "E2FSPROGS_FAKE_TIME": "1", "E2FSPROGS_LIBMAGIC_SUPPRESS": "1"}
    made = {}
    for size in (SMALL, *READY):
        made[size] = folder / f"{size}.ext4"
        with made[size].open("wb") as file:
            file.truncate(size)
        run([*start, *mke2fs_arguments(made[size], size)], env=env)
    return made
