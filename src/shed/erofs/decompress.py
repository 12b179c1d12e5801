"""Decoding one physical cluster: exact sizes, bounded memory, hostile input.

An encoded cluster holds one stream.  With 0PADDING it ends where the cluster ends, with zeros before it, and decodes to
exactly the extent. Without (images of before Linux 5.3), an LZ4 stream begins where the cluster begins, with anything
behind it, and may hold more than the extent: it is decoded until there is enough.
"""

from __future__ import annotations

import zlib

import lz4.block
import zstandard

from shed.erofs import layout
from shed.erofs.errors import ErofsError

_MIN_MATCH = 4
_RAW_DEFLATE = -15
MAX_WINDOW = 1 << 20
"""Bytes of history a zstd stream may ask a kernel for."""


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
    """Return the `length` bytes that the cluster `data` decodes to (its first `length`, when `partial`).

    `window` is the most history, in bytes, that a zstd stream may ask for.  Raises `ErofsError` when the cluster
    decodes to more or fewer bytes, or not at all, or when the algorithm is not supported.
    """
    try:
        if zero_padding or algorithm != layout.ALGORITHM_LZ4:
            data = _without_padding(data)
        if algorithm == layout.ALGORITHM_LZ4:
            out = _lz4(data, length, zero_padding=zero_padding, partial=partial)
        elif algorithm == layout.ALGORITHM_ZSTD:
            out = _zstd(data, length, partial=partial, window=window)
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


def _lz4(data: bytes, length: int, *, zero_padding: bool, partial: bool) -> bytes:
    if not zero_padding:
        return lz4_prefix(data, length)
    out: bytes = lz4.block.decompress(data, uncompressed_size=layout.PCLUSTER_MAX_DSIZE if partial else length)
    return out[:length] if partial else out


def _zstd(data: bytes, length: int, *, partial: bool, window: int) -> bytes:
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
    """Return the first `length` bytes that the LZ4 block `data` decodes to, whatever follows in it.

    Raises `ValueError`.

    In Python, for the few old images that need it: the LZ4 library decodes exact streams alone.
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
