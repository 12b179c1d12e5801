"""What minting asks of a writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from shed.entries import Entry
from shed.oci.staging import StagedBlob


class RootWriter(Protocol):
    """Writes a tree as an EROFS image.  The same tree gives the same bytes on every machine, at any time."""

    @property
    def name(self) -> str:
        """All that decides the bytes: writer, versions, compression; recorded as ``io.shed.build-tools``."""
        ...

    @property
    def algorithm(self) -> str:
        """What the guest's kernel must be able to decompress: ``lz4``, ``zstd``, or ``none``."""
        ...

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        """Write the tree of `entries` as the content of `blob`, which is new, through ``blob.file``.

        `on_bytes` hears how many more bytes of file data are done.  Raises `ShedError`; the blob is thrown away then.
        """
        ...
