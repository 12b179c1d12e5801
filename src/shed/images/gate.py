"""The gate: no root file system gets into a manifest, whoever wrote it, before it went through here.

Mounting is no test of an EROFS image, and neither is ``fsck.erofs``: both let pass what a kernel then cannot read.  So
every inode is checked, and every name, attribute and extent is read back by code that had no part in writing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from shed.entries import Entry
from shed.erofs.checker import check
from shed.erofs.verifier import verify_contents
from shed.oci.digest import Digest, digest_fd


def let_through(path: Path, file: BinaryIO, entries: Iterable[Entry]) -> Digest:
    """Return the digest of the image `path`, open as `file`, after comparing all of it with the `entries` that it was made from.

    Raises `ErofsError`, which names the inode or the path and the rule.
    """
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(digest_fd, file.fileno())
        check(path)
        verify_contents(path, entries)
        return digest.result()
