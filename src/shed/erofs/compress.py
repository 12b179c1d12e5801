"""Which compression an image is written with, and the codecs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import lz4
import lz4.block
import zstandard

from shed.erofs import layout
from shed.errors import UsageError

Codec = Callable[[bytes], bytes]
"""Compresses one piece of data; safe to call from several threads at once, and always gives the same bytes for the same
input.
"""

_LEVELS = {"lz4hc": (1, 12, 9), "zstd": (1, 22, 3)}
"""Lowest, highest and default level of the algorithms that have levels."""
_CLUSTER_SIZES = {"none": 64 << 10, "lz4": 64 << 10, "lz4hc": 128 << 10, "zstd": 128 << 10}
"""Default cluster sizes.  On a Debian root of 700 MB these give 1.00 (lz4), 0.97 (lz4hc) and 0.97 (zstd) of the bytes
that mkfs.erofs 1.9 writes with `-C65536`.  Reading one page decompresses what lies before it in its cluster, so larger
ones cost the guest; lz4 is also at its fastest up to 64 KiB, where it uses its smallest tables.
"""
MAX_CLUSTER_SIZE = 512 << 10
"""Our limit: the last cluster of a file may be half as long again, and must stay within EROFS's 1 MiB."""


@dataclass(frozen=True, slots=True)
class Compression:
    """An algorithm (``none``, ``lz4``, ``lz4hc``, ``zstd``) and its level, 0 where it has none."""

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
        """The number EROFS has for the format (`layout.ALGORITHM_*`), None for ``none``: what the kernel must be able to read."""
        return {
            "none": None,
            "lz4": layout.ALGORITHM_LZ4,
            "lz4hc": layout.ALGORITHM_LZ4,
            "zstd": layout.ALGORITHM_ZSTD,
        }[self.algorithm]

    @property
    def decoder(self) -> str:
        """What the kernel must be able to read, by name; LZ4 HC is LZ4 to who reads it."""
        return "lz4" if self.algorithm == "lz4hc" else self.algorithm

    @property
    def default_cluster_size(self) -> int:
        """Bytes of file data compressed together when nothing else is asked for."""
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
            return _zstd(self.level)
        return None

    def settings(self, *, max_blocks: int, max_cluster: int) -> bytes:
        """Return the settings record that follows the superblock, empty for ``none``.

        `max_blocks` is the largest encoded cluster in blocks, which is what a kernel reserves buffers for;
        `max_cluster` the largest decoded one in bytes, which zstd's window must not exceed.
        """
        if self.format is None:
            return b""
        if self.format == layout.ALGORITHM_LZ4:
            record = layout.LZ4_CFG.pack(layout.LZ4_MAX_DISTANCE, max_blocks)
        else:
            window_log = max((max_cluster - 1).bit_length(), layout.ZSTD_WINDOWLOG_BASE)
            record = layout.ZSTD_CFG.pack(0, window_log - layout.ZSTD_WINDOWLOG_BASE)
        return layout.COMPR_CFG_SIZE.pack(len(record)) + record


def _zstd(level: int) -> Codec:
    # The frame must carry the content size (fsck.erofs asks for it) and nothing else; a compressor belongs to one
    # thread.
    local = threading.local()

    def compress(data: bytes) -> bytes:
        try:
            compressor = local.compressor
        except AttributeError:
            compressor = local.compressor = zstandard.ZstdCompressor(level=level)
        return bytes(compressor.compress(data))

    return compress
