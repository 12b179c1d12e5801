"""Remembering which blobs were compared with their digests, so that a shed starts without reading its image twice.

For each blob a small file keeps what `stat` said of the blob when it was last compared.  Whoever changes the blob
changes that; a disk that returns other bytes than were written does not, and is found by `again` alone.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from shed.errors import StorageError
from shed.fsutil import atomic_write
from shed.oci.digest import Digest, digest_fd, hex_of, mismatch, short


class VerifiedBlobs:
    """The blobs in the folder `blobs`, with its records in the folder `records`."""

    def __init__(self, blobs: Path, records: Path) -> None:
        self._blobs = blobs
        self._records = records

    def verify(self, digest: Digest, *, again: bool) -> None:
        """Compare a blob with its digest unless its record shows that nothing changed.

        Raises `DataError` (DIGEST_MISMATCH), and `FileNotFoundError`.
        """
        record = self._records / hex_of(digest)
        with (self._blobs / hex_of(digest)).open("rb") as file:
            state = _state(os.fstat(file.fileno()))
            with contextlib.suppress(OSError, ValueError):
                if not again and record.read_text() == state:
                    return
            actual = digest_fd(file.fileno())
        if actual != digest:
            raise mismatch(f"blob {short(digest)}", digest, actual)
        with contextlib.suppress(OSError, StorageError):  # a store that cannot be written to is read again next time
            self._records.mkdir(mode=0o700, exist_ok=True)
            atomic_write(record, state)


def _state(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"
