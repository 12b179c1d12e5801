"""Compression: which one an image is written with, compressing clusters, and decoding them.

An encoded cluster holds one stream.  With the feature 0PADDING the stream ends where the cluster ends, with zeros
before it, and decodes to exactly the extent.  Without it (images made before Linux 5.3) an LZ4 stream begins where the
cluster begins.  Anything may follow it, and it may decode to more than the extent, so decoding stops when there is
enough.  Images are hostile: sizes are checked, and memory is bounded.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import lz4
import lz4.block
import zstandard

from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.errors import UsageError

Codec = Callable[[bytes], bytes]
"""Compresses one piece of data.  It may be called from several threads; the same input always gives the same bytes."""

_LEVELS = {"lz4hc": (1, 12, 9), "zstd": (1, 22, 3)}
"""Lowest, highest and default level of the algorithms that have levels."""
_CLUSTER_SIZES = {"none": 64 << 10, "lz4": 64 << 10, "lz4hc": 128 << 10, "zstd": 128 << 10}
"""Default cluster sizes.

On a Debian root of 700 MB these give 1.00 (lz4), 0.97 (lz4hc) and 0.97 (zstd) of the bytes that mkfs.erofs 1.9 writes
with `-C65536`.  To read one page, the guest decompresses all that comes before it in its cluster, so larger clusters
make reading slower.  lz4 is also fastest up to 64 KiB, where it uses its smallest tables.
"""
MAX_CLUSTER_SIZE = 512 << 10
"""Our limit.  The last cluster of a file may be half as long again, and must stay within EROFS's limit of 1 MiB."""


_MIN_MATCH = 4
_RAW_DEFLATE = -15
MAX_WINDOW = 1 << 20
"""Most bytes of history that a zstd stream may need."""


@dataclass(frozen=True, slots=True)
class Compression:
    """An algorithm (``none``, ``lz4``, ``lz4hc``, ``zstd``) and its level; 0 for an algorithm without levels."""

    algorithm: str = "lz4"
    level: int = 0

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Read ``none``, ``lz4``, ``lz4hc[:1-12]`` or ``zstd[:1-22]``; raises `UsageError`."""
        algorithm, colon, level_text = text.partition(":")
        if algorithm not in _CLUSTER_SIZES:
            raise UsageError(f"unknown compression {text!r}", hint="use lz4, lz4hc[:1-12], zstd[:1-22] or none")
        if algorithm not in _LEVELS:
            if colon:
                raise UsageError(
                    f"{algorithm} has no levels: {text!r}", hint=f"use {algorithm}, or lz4hc[:1-12] or zstd[:1-22]"
                )
            return cls(algorithm)
        low, high, default = _LEVELS[algorithm]
        if not colon:
            return cls(algorithm, default)
        if not (level_text.isascii() and level_text.isdigit()) or not low <= int(level_text) <= high:
            raise UsageError(f"bad level in compression {text!r}", hint=f"use {algorithm}:{low} to {algorithm}:{high}")
        return cls(algorithm, int(level_text))

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.level}" if self.level else self.algorithm

    @property
    def format(self) -> int | None:
        """The format that a kernel must be able to read, as `layout.ALGORITHM_*`; None for ``none``."""
        return {
            "none": None,
            "lz4": layout.ALGORITHM_LZ4,
            "lz4hc": layout.ALGORITHM_LZ4,
            "zstd": layout.ALGORITHM_ZSTD,
        }[self.algorithm]

    @property
    def decoder(self) -> str:
        """The name of the format that a kernel must be able to read: LZ4 HC is read as LZ4."""
        return "lz4" if self.algorithm == "lz4hc" else self.algorithm

    @property
    def default_cluster_size(self) -> int:
        """Bytes of file data that are compressed together by default."""
        return _CLUSTER_SIZES[self.algorithm]

    @property
    def library(self) -> str:
        """The package whose code decides the compressed bytes, as ``name/version``; empty for ``none``."""
        return {"none": "", "zstd": f"zstandard/{zstandard.__version__}"}.get(self.algorithm, f"lz4/{lz4.__version__}")

    def codec(self) -> Codec | None:
        """Return the function that compresses, None for ``none``."""
        if self.algorithm == "lz4":
            return lambda data: bytes(lz4.block.compress(data, store_size=False))
        if self.algorithm == "lz4hc":
            level = self.level
            return lambda data: bytes(
                lz4.block.compress(data, mode="high_compression", compression=level, store_size=False)
            )
        if self.algorithm == "zstd":
            return _zstd_codec(self.level)
        return None

    def settings(self, *, max_blocks: int, max_cluster: int) -> bytes:
        """Return the settings record that follows the superblock; empty for ``none``.

        `max_blocks` is the size of the largest encoded cluster in blocks: a kernel reserves buffers of that size.
        `max_cluster` is the size of the largest decoded cluster in bytes, which zstd's window must not exceed.
        """
        if self.format is None:
            return b""
        if self.format == layout.ALGORITHM_LZ4:
            record = layout.LZ4_CFG.pack(layout.LZ4_MAX_DISTANCE, max_blocks)
        else:
            window_log = max((max_cluster - 1).bit_length(), layout.ZSTD_WINDOWLOG_BASE)
            record = layout.ZSTD_CFG.pack(0, window_log - layout.ZSTD_WINDOWLOG_BASE)
        return layout.COMPR_CFG_SIZE.pack(len(record)) + record


def _zstd_codec(level: int) -> Codec:
    # The frame must carry the content size (fsck.erofs needs it) and nothing else.  A compressor may be used by one
    # thread only.
    local = threading.local()

    def compress(data: bytes) -> bytes:
        try:
            compressor = local.compressor
        except AttributeError:
            compressor = local.compressor = zstandard.ZstdCompressor(level=level)
        return bytes(compressor.compress(data))

    return compress


# Decoding.


def decode(
    algorithm: int,
    data: bytes,
    length: int,
    *,
    zero_padding: bool = True,
    partial: bool = False,
    window: int = MAX_WINDOW,
    nid: int | None = None,
) -> bytes:
    """Return the `length` bytes that the cluster `data` decodes to; with `partial`, its first `length` bytes.

    `window` is the most history, in bytes, that a zstd stream may need.  Raises `ErofsError` when the cluster
    decodes to more or fewer bytes, or not at all, or when the algorithm is not supported.
    """
    try:
        if zero_padding or algorithm != layout.ALGORITHM_LZ4:
            data = _without_padding(data)
        if algorithm == layout.ALGORITHM_LZ4:
            out = _decode_lz4(data, length, zero_padding=zero_padding, partial=partial)
        elif algorithm == layout.ALGORITHM_ZSTD:
            out = _decode_zstd(data, length, partial=partial, window=window)
        elif algorithm == layout.ALGORITHM_DEFLATE:
            out = zlib.decompressobj(_RAW_DEFLATE).decompress(data, length)
        else:
            raise ErofsError(
                f"compression with {layout.ALGORITHM_NAMES[algorithm]} is not supported",
                rule="unsupported-feature",
                nid=nid,
            )
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, zlib.error, ValueError) as error:
        raise ErofsError(f"compressed data is damaged: {error}", rule="compressed-data", nid=nid) from None
    if len(out) != length:
        raise ErofsError(f"compressed data holds {len(out)} bytes, not {length}", rule="compressed-data", nid=nid)
    return out


def _without_padding(data: bytes) -> bytes:
    """Return `data` without the zeros before the stream, which are fewer than a block."""
    stripped = data.lstrip(b"\0")
    if len(data) - len(stripped) >= min(layout.BLOCK_SIZE, len(data)):
        raise ValueError("nothing but padding")
    return stripped


def _decode_lz4(data: bytes, length: int, *, zero_padding: bool, partial: bool) -> bytes:
    if not zero_padding:
        return lz4_prefix(data, length)
    out: bytes = lz4.block.decompress(data, uncompressed_size=layout.PCLUSTER_MAX_DSIZE if partial else length)
    return out[:length] if partial else out


def _decode_zstd(data: bytes, length: int, *, partial: bool, window: int) -> bytes:
    asked = zstandard.get_frame_parameters(data).window_size
    if asked > window:
        raise ValueError(f"it needs a window of {asked} bytes, {window} are declared")
    if partial:
        return (
            zstandard.ZstdDecompressor(max_window_size=max(window, 1 << 10))
            .stream_reader(data, read_size=len(data))
            .read(length)
        )
    claimed = zstandard.frame_content_size(data)
    if claimed > length:  # it would be allocated
        raise ValueError(f"frame claims to hold {claimed} bytes, not {length}")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=length)


def lz4_prefix(data: bytes, length: int) -> bytes:
    """Return the first `length` bytes that the LZ4 block `data` decodes to, and ignore what follows.

    This is for the few old images that need it, and slow: the LZ4 library only decodes streams whose end is known.
    Raises `ValueError`.
    """
    out = bytearray()
    position = 0
    try:
        while True:
            token = data[position]
            position += 1
            count = token >> 4
            if count == 15:
                position, count = _lz4_length(data, position, count)
            if position + count > len(data) and len(out) + count < length:
                raise ValueError("literals are cut off")
            out += data[position : position + count]
            position += count
            if len(out) >= length:
                return bytes(out[:length])
            distance = data[position] | data[position + 1] << 8
            position += 2
            if not 0 < distance <= len(out):
                raise ValueError("match before the start")
            count = token & 15
            if count == 15:
                position, count = _lz4_length(data, position, count)
            count = min(count + _MIN_MATCH, length - len(out))
            start = len(out) - distance
            if distance >= count:
                out += out[start : start + count]
            else:
                out += (bytes(out[start:]) * (count // distance + 1))[:count]
            if len(out) >= length:
                return bytes(out)
    except IndexError:
        raise ValueError("stream is cut off") from None


def _lz4_length(data: bytes, position: int, count: int) -> tuple[int, int]:
    while True:
        more = data[position]
        position += 1
        count += more
        if more != 255:
            return position, count
