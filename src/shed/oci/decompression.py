"""Decompression of layers and archives: gzip, zstd, for archives xz, or none, told apart by their first bytes.

Everything streams: a piece is read once, hashed, kept as it was and decompressed.  What comes out goes to an unnamed
file, with holes where there is a megabyte of zeros; what it may come to is counted in `shed.oci.unpack_limits`.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol, Self, cast

import zstandard
from isal import igzip, isal_zlib

from shed.errors import DataError
from shed.fsutil import storage_errors
from shed.oci.content import FileSlice
from shed.oci.digest import Digest
from shed.sizes import format_size

CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)
_GZIP, _ZSTD, _ZSTD_SKIPPABLE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
_XZ = b"\xfd7zXZ\0"
_OTHERS = {b"BZh": "bzip2", _XZ: "xz", b"\x04\x22\x4d\x18": "lz4"}
HEAD = 18
"""Bytes that tell a compression, and what a zstd frame needs: its longest header."""
_WINDOW, _MAX_WINDOW = 1 << 27, 1 << 29
"""Memory that a zstd frame may ask for: what `zstd --long` uses, and the most, of ``--long=29``, for one at a time."""
_SMALLER_WINDOW = "compress it again, with zstd --long=29 at most"
_NEEDS_MEMORY = {
    "too much memory": _SMALLER_WINDOW,  # a later frame than the first, whose window was looked at
    "Memory usage limit": "compress it again, with xz -9 at most",
}
"""What decoders say, and what to do."""
_large_window = threading.Lock()
_XZ_MEMORY = 1 << 28
"""Memory that an xz stream may ask for: ``xz -9`` needs 65 MiB."""
DECODER_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    EOFError,
    isal_zlib.error,  # type: ignore[assignment]
    zstandard.ZstdError,
    lzma.LZMAError,
)


class Spending(Protocol):
    """What is asked before bytes are written: `shed.budget.Budget`, or `shed.oci.unpack_limits.Part`."""

    def spend(self, count: int, *, stored: bool = True) -> None:
        """Take `count` bytes; not `stored`, they become a hole.  Raises `DataError` and `StorageError`."""
        ...


class SourceReader:
    """Reads a slice from its start to its end; every piece is shown to `tap` on the way."""

    def __init__(self, source: FileSlice, tap: Callable[[bytes], object] | None = None) -> None:
        self.position = 0
        self._source = source
        self._tap = tap

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        data = self._source.pread(CHUNK if size < 0 else size, self.position)
        self.position += len(data)
        if data and self._tap:
            self._tap(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill `buffer` as far as there is data; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def drain(self) -> None:
        """Read what is left, for `tap` alone."""
        while self.read(CHUNK):
            pass


def compression(head: bytes, *, of_archive: bool = False) -> str | None:
    """Return ``gzip``, ``zstd``, ``xz`` if it may be that of a whole archive, or None, as the first `HEAD` bytes tell.

    Raises `DataError` for a compression not known here, or one that needs more memory than it is given.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
        if (window := _window(head)) > _MAX_WINDOW:
            raise DataError(
                f"zstd needs {format_size(window)} of memory to unpack it, and gets {format_size(_MAX_WINDOW)} at most",
                hint=_SMALLER_WINDOW,
            )
        return "zstd"
    if of_archive and head.startswith(_XZ):
        return "xz"
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise DataError(f"{name} compression is not supported", hint="gzip, zstd and none are: compress it again")
    return None


def _window(head: bytes) -> int:
    """Return the bytes of memory that the first zstd frame needs, 0 if `head` does not tell."""
    try:
        return zstandard.get_frame_parameters(head).window_size if head.startswith(_ZSTD) else 0
    except zstandard.ZstdError:
        return 0


def decompressed(reader: SourceReader, head: bytes) -> Iterator[bytes]:
    """Yield what `reader` holds, decompressed as its first bytes `head` ask for.

    Damage raises one of `DECODER_ERRORS`; a zstd stream that is cut just ends, so check what came out.
    """
    kind = compression(head, of_archive=True)  # whoever opened it has said if it may be that
    if kind == "gzip":
        with igzip.IGzipFile(fileobj=reader, mode="rb") as stream:  # type: ignore[no-untyped-call]
            while data := stream.read(CHUNK):
                yield data
    elif kind == "zstd":
        window = _window(head)
        with contextlib.ExitStack() as stack:
            if window > _WINDOW:
                stack.enter_context(_large_window)
            decoder = zstandard.ZstdDecompressor(max_window_size=max(window, _WINDOW))
            source = cast("IO[bytes]", reader)
            frames = decoder.stream_reader(source, read_size=CHUNK, read_across_frames=True, closefd=False)
            stack.enter_context(frames)
            while data := frames.read(CHUNK):
                yield data
    elif kind == "xz":
        yield from _unpacked_xz(reader)
    else:
        while data := reader.read(CHUNK):
            yield data


def _unpacked_xz(reader: SourceReader) -> Iterator[bytes]:
    """Yield what the streams of an xz file hold, one after the other; between them there may be zeros."""
    data = reader.read(CHUNK)
    while data:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not decoder.eof:
            if out := decoder.decompress(data, CHUNK):
                yield out
            data = reader.read(CHUNK) if decoder.needs_input and not decoder.eof else b""
            if not data and decoder.needs_input and not decoder.eof:
                raise EOFError("the xz stream is cut short")
        data = decoder.unused_data.lstrip(b"\0")
        while not data and (more := reader.read(CHUNK)):
            data = more.lstrip(b"\0")


class Spool:
    """An unnamed file that is written once from start to end and then read by position."""

    def __init__(self, folder: Path, budget: Spending) -> None:
        with storage_errors(folder):
            self._file = _unnamed(folder)
        self._folder = folder
        self._budget = budget
        self._sha = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Append `data`.  Raises `StorageError` when the disk refuses and `DataError` when the budget is spent."""
        stored = data != _ZEROS
        self._budget.spend(len(data), stored=stored)
        self._sha.update(data)
        if stored:
            view = memoryview(data)
            with storage_errors(self._folder):
                while view:
                    count = os.pwrite(self._file.fileno(), view, self._size)
                    self._size, view = self._size + count, view[count:]
        else:
            self._size += len(data)

    def finish(self) -> FileSlice:
        """Return everything that was written; it is readable until `close`."""
        with storage_errors(self._folder):
            os.ftruncate(self._file.fileno(), self._size)
        return FileSlice(self._file.fileno(), 0, self._size)

    def digest(self) -> Digest:
        """Return the digest of what was written."""
        return Digest("sha256:" + self._sha.hexdigest())

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


@contextlib.contextmanager
def decoder_errors(what: str) -> Iterator[None]:
    """Turn a decompressor's complaint into a `DataError` that names `what`."""
    try:
        yield
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the decoder's
            raise
        for words, hint in _NEEDS_MEMORY.items():
            if words in str(error):
                raise DataError(f"{what} needs too much memory to unpack: {error}", hint=hint) from None
        raise DataError(f"{what} is damaged: {error}", hint="get it again") from None


def _unnamed(folder: Path) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder)
