"""The default: shed's own EROFS writer, in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from shed.entries import Entry
from shed.erofs.compression import Compression
from shed.erofs.writer import WriterOptions, write_image, writer_name
from shed.fsutil import storage_errors
from shed.oci.staging import StagedBlob


def best_compression(readable: Collection[str]) -> Compression:
    """Return what images are written with unless asked otherwise: zstd where the kernel, which reads `readable`, has it, else LZ4.

    zstd at its level 3 is 0.73 of LZ4's size and written in little more time; a guest that reads it cold takes a tenth
    longer.
    """
    return Compression.parse("zstd" if "zstd" in readable else "lz4")


class BuiltinWriter:
    """Writes with `shed.erofs.writer`; pinned by the release of shed and of the codecs."""

    def __init__(self, compression: Compression | None = None) -> None:
        self._compression = compression or Compression()

    @property
    def name(self) -> str:
        """Shed's version, the codec's, and the compression."""
        return f"{writer_name(self._compression)} {self._compression}"

    @property
    def algorithm(self) -> str:
        """What the guest's kernel must be able to decompress."""
        return self._compression.decoder

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        """Write the tree; see `RootWriter.write`."""
        with storage_errors(blob.path):
            write_image(entries, blob.file, WriterOptions(compression=self._compression, on_progress=on_bytes))
            blob.file.flush()
