"""Bodies that a proxy has gzipped on the way, whatever was asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from shed.errors import RegistryError

_GZIP = frozenset({"gzip", "x-gzip"})
_WITH_HEADER = 16 + zlib.MAX_WBITS


def is_gzipped(headers: Mapping[str, str], place: str) -> bool:
    """Tell whether the body behind `headers`, from `place`, is gzipped.

    Raises `RegistryError` for another encoding: none was asked for.
    """
    coding = headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return False
    if coding in _GZIP:
        return True
    hint = "have the proxy before it leave its answers as they are"
    raise RegistryError(f"{place} sends its answer as {coding[:40]!r}, which nobody asked for", hint=hint)


class Gunzip:
    """Unpacks one stream as it comes, never more at once than is asked for."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(_WITH_HEADER)

    @property
    def ended(self) -> bool:
        """Whether the stream is complete."""
        return self._decoder.eof

    def feed(self, data: bytes, most: int) -> Iterator[bytes]:
        """Yield what comes out of `data`, in pieces of at most `most` bytes.  Raises `zlib.error`."""
        while not self._decoder.eof:
            out = self._decoder.decompress(data, most)
            data = self._decoder.unconsumed_tail
            if out:
                yield out
            if not data and len(out) < most:
                return
