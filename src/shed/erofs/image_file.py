"""An image file, as bytes with a bounds check on every access."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any

from shed.erofs.errors import ErofsError
from shed.errors import NotFoundError, StorageError


class ImageFile:
    """An image open for reading.

    Metadata is read through a memory map, which suits many small reads.  Data is read with `pread`, which lets other
    threads run while the disk works.  Both are safe to use from several threads.  The file must not shrink while it is
    open (stored blobs never change).
    """

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises `NotFoundError`, `ErofsError` when it is empty or no file, and `StorageError` when it cannot be read.
        """
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo does not make us wait
        except FileNotFoundError:
            raise NotFoundError(f"no file {path}") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        try:
            if stat.S_ISDIR(os.fstat(self._fd).st_mode):
                raise ErofsError(f"{path} is a folder", rule="magic")
            if stat.S_ISFIFO(os.fstat(self._fd).st_mode):
                raise ErofsError(f"{path} is a pipe", rule="magic")
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
            if self.size == 0:
                raise ErofsError(f"{path} is empty", rule="truncated")
            self.map = mmap.mmap(self._fd, self.size, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            self.map.close()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> ImageFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def metadata(self, offset: int, length: int, *, rule: str, nid: int | None = None) -> bytes:
        """Return `length` bytes at `offset`; raises `ErofsError` with `rule` when they are not all inside the file."""
        self.check(offset, length, rule=rule, nid=nid)
        return self.map[offset : offset + length]

    def unpack(self, structure: Struct, offset: int, *, rule: str, nid: int | None = None) -> tuple[Any, ...]:
        """Return the fields of `structure` at `offset`.

        Raises `ErofsError` with `rule` when it is not inside the file.
        """
        self.check(offset, structure.size, rule=rule, nid=nid)
        return structure.unpack_from(self.map, offset)

    def data(self, offset: int, length: int, *, nid: int | None = None) -> bytes:
        """Return exactly `length` bytes at `offset`.

        Raises `ErofsError` (``data-outside``) when the file ends before that.
        """
        self.check(offset, length, rule="data-outside", nid=nid)
        piece = os.pread(self._fd, length, offset)
        if len(piece) == length:
            return piece
        pieces = [piece]
        missing = length - len(piece)
        while missing:
            piece = os.pread(self._fd, missing, offset + length - missing)
            if not piece:
                raise ErofsError(f"{self.path} shrank while it was read", rule="truncated", nid=nid)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def check(self, offset: int, length: int, *, rule: str, nid: int | None = None) -> None:
        """Raise `ErofsError` with `rule` unless `length` bytes at `offset` are inside the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ErofsError(
                f"bytes {offset} to {offset + length} are outside the image of {self.size} bytes", rule=rule, nid=nid
            )
