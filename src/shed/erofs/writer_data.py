"""Writing the data of regular files: read, compressed by threads, written in order.

Files are divided into clusters, and clusters are put together into batches of about a megabyte.  A pool of threads
encodes batches, while the caller's thread writes the finished ones in order.  Where a batch begins depends only on the
tree, so the bytes do not depend on the number of threads.  Only a few batches are in memory at any time.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, Protocol

from shed.entries import Content, Entry
from shed.erofs import layout
from shed.erofs.clusters import FileData, Run, Storage
from shed.erofs.compression import Codec
from shed.erofs.errors import ErofsError, shown
from shed.erofs.layout import BLOCK_SIZE

_BATCH_BYTES = 1 << 20
_BATCH_PIECES = 128
_HASH_PIECE = 1 << 20
_SPOOL_MEMORY = 32 << 20
_INLINE_MAX = BLOCK_SIZE - 32
"""Longest inline tail: an inode begins at a multiple of 32, so the place of a tail cannot be chosen more finely."""
_HOLE_CHUNK_BITS = 32
"""A file that is one hole has an entry of 4 bytes in its chunk map for each 4 GiB."""
_SHARED_MIN = BLOCK_SIZE
"""Smaller files are stored inside their inodes, so there is nothing to share."""


class DataNode(Protocol):
    """The part of an inode that this module needs."""

    entry: Entry
    data: FileData | None


class _Piece(NamedTuple):
    """Consecutive clusters of one file."""

    node: DataNode
    offset: int
    lengths: list[int]
    last: bool


class _Encoded(NamedTuple):
    """An encoded batch.  Block numbers of its runs are relative to the start of `blob`."""

    pieces: list[tuple[_Piece, list[Run], bytes]]
    blob: bytes
    checksum: int


class DataWriter:
    """Writes the data of files one after the other, from block 1 of `out` on.

    With `codec` None nothing is compressed.  `fingerprint` is called with checksums of all that is written.
    """

    def __init__(
        self,
        out: BinaryIO,
        *,
        codec: Codec | None,
        cluster_size: int,
        threads: int,
        fingerprint: Callable[[bytes], None],
    ) -> None:
        self._out = out
        self._codec = codec
        self._cluster = cluster_size
        self._threads = threads
        self._fingerprint = fingerprint
        self._zeros = bytes(cluster_size)
        self._zero_runs: dict[int, Run] = {}
        self._unfinished: list[Run] = []
        self.tails: BinaryIO = tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY)  # type: ignore[assignment]  # noqa: SIM115
        """The inline tails, until it is known where in the image they belong."""
        self._tails_size = 0
        self.next_block = 1
        self.max_blocks = 1
        """The largest compressed cluster, in blocks."""

    def __enter__(self) -> DataWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.tails.close()

    def write(self, nodes: Iterable[DataNode], *, on_progress: Callable[[int], None] | None = None) -> None:
        """Write the data of `nodes`, which are regular files, and set their `data`.  Equal files are stored once.

        `on_progress` is called with the number of file bytes that were done since its last call.  Raises `ErofsError`
        (``short-content``).
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="erofs") as pool:
            try:
                self._write(list(nodes), pool, on_progress)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _write(
        self, nodes: list[DataNode], pool: ThreadPoolExecutor, on_progress: Callable[[int], None] | None
    ) -> None:
        twins = _find_twins(nodes, pool)
        unique = []
        for node in nodes:
            if not node.entry.size:
                node.data = FileData()
            elif id(node) not in twins:
                unique.append(node)
        window: deque[Future[_Encoded]] = deque()
        for batch in _batches(unique, self._cluster, merge=self._codec is not None):
            if len(window) > 2 * self._threads:
                self._finish(window.popleft().result(), on_progress)
            window.append(pool.submit(self._encode, batch))
        while window:
            self._finish(window.popleft().result(), on_progress)
        for node in nodes:
            twin = twins.get(id(node))
            if twin is not None:
                node.data = twin.data
                if on_progress is not None:
                    on_progress(node.entry.size)

    # What the threads of the pool do.

    def _encode(self, batch: list[_Piece]) -> _Encoded:
        blob: list[bytes] = []
        used = 0
        pieces = []
        for piece in batch:
            runs: list[Run] = []
            tail = b""
            offset = piece.offset
            for number, length in enumerate(piece.lengths, 1):
                data = _read(piece.node.entry, offset, length)
                offset += length
                if offset >= BLOCK_SIZE and self._is_zero(data):
                    runs.append(Run(Storage.ZERO, length))
                    continue
                last = piece.last and number == len(piece.lengths)
                # A file with a chunk map cannot have a tail, and whether it needs the map is only known at its end.
                inline = last and (self._codec is not None or offset == length)
                stored, tail = self._encode_cluster(data, runs, used, inline=inline)
                if stored:
                    blob.append(stored)
                    padding = -len(stored) % BLOCK_SIZE
                    used += (len(stored) + padding) // BLOCK_SIZE
                    if padding:
                        # Compressed data is at the end of its blocks, uncompressed data at the start.
                        blob.insert(len(blob) - (runs[-1].kind is Storage.COMPRESSED), bytes(padding))
            pieces.append((piece, runs, tail))
        joined = b"".join(blob)
        checksum = zlib.crc32(joined)
        for _, _, tail in pieces:
            checksum = zlib.crc32(tail, checksum)
        return _Encoded(pieces, joined, checksum)

    def _encode_cluster(self, data: bytes, runs: list[Run], block: int, *, inline: bool) -> tuple[bytes, bytes]:
        """Append the runs of one cluster to `runs`, as stored from `block` on.

        Return the bytes to store in blocks, and those to store inline.
        """
        length = len(data)
        blocks = -(-length // BLOCK_SIZE)
        if self._codec is not None:
            packed = self._codec(data)
            if inline and len(packed) < min(length - length // 8, _INLINE_MAX):
                runs.append(Run(Storage.INLINE_COMPRESSED, length))
                return b"", packed
            packed_blocks = -(-len(packed) // BLOCK_SIZE)
            if packed_blocks < blocks:
                runs.append(Run(Storage.COMPRESSED, length, block, packed_blocks))
                return packed, b""
        rest = length % BLOCK_SIZE
        if not inline or not 0 < rest <= _INLINE_MAX:
            runs.append(Run(Storage.PLAIN, length, block, blocks))
            return data, b""
        if length > rest:
            runs.append(Run(Storage.PLAIN, length - rest, block, blocks - 1))
        runs.append(Run(Storage.INLINE_PLAIN, rest))
        return data[: length - rest], data[length - rest :]

    def _is_zero(self, data: bytes) -> bool:
        length = len(data)
        return not data[0] and data == (self._zeros if length == self._cluster else bytes(length))

    # What the caller's thread does.

    def _finish(self, encoded: _Encoded, on_progress: Callable[[int], None] | None) -> None:
        """Write an encoded batch and give the files that end in it their `data`."""
        base = self.next_block
        self._out.write(encoded.blob)
        self.next_block += len(encoded.blob) // BLOCK_SIZE
        self._fingerprint(struct.pack("<I", encoded.checksum))
        done = 0
        for piece, runs, tail in encoded.pieces:
            for run in runs:
                self._append(run, base)
            if piece.last:
                piece.node.data = self._conclude(self._unfinished, tail)
                self._unfinished = []
            done += sum(piece.lengths)
        if on_progress is not None:
            on_progress(done)

    def _append(self, run: Run, base: int) -> None:
        if run.kind is Storage.ZERO and run.length == self._cluster:
            run = _FULL_ZERO.setdefault(self._cluster, run)
        elif run.blocks:
            run = Run(run.kind, run.length, base + run.block, run.blocks)
            if run.kind is Storage.COMPRESSED:
                self.max_blocks = max(self.max_blocks, run.blocks)
            elif self._unfinished:
                previous = self._unfinished[-1]
                if previous.kind is Storage.PLAIN and previous.block + previous.blocks == run.block:
                    self._unfinished[-1] = Run(
                        Storage.PLAIN, previous.length + run.length, previous.block, previous.blocks + run.blocks
                    )
                    return
        self._unfinished.append(run)

    def _conclude(self, runs: list[Run], tail: bytes) -> FileData:
        """Choose the data layout of a file whose bytes are all encoded."""
        tail_at = self._tails_size
        if tail:
            self.tails.write(tail)
            self._tails_size += len(tail)
        kinds = {run[0] for run in runs}
        if kinds == {Storage.ZERO}:
            size = sum(run.length for run in runs)
            chunk_bits = min((size - 1).bit_length(), _HOLE_CHUNK_BITS)
            return FileData(
                layout.LAYOUT_CHUNK_BASED, chunk_bits - layout.BLOCK_BITS, [Run(Storage.ZERO, size)], chunk_bits
            )
        plain = [run for run in runs if run.kind is Storage.PLAIN]
        if kinds <= {Storage.PLAIN, Storage.INLINE_PLAIN} and len(plain) <= 1:
            start = plain[0].block if plain else 0
            flat = layout.LAYOUT_FLAT_INLINE if tail else layout.LAYOUT_FLAT_PLAIN
            return FileData(flat, start, tail_at=tail_at, tail_size=len(tail))
        if self._codec is None:
            chunk_bits = self._cluster.bit_length() - 1
            return FileData(layout.LAYOUT_CHUNK_BASED, chunk_bits - layout.BLOCK_BITS, runs, chunk_bits)
        if Storage.ZERO in kinds:
            runs = [self._store_zeros(run) if run.kind is Storage.ZERO else run for run in runs]
        blocks = sum(run.blocks for run in runs)
        return FileData(layout.LAYOUT_COMPRESSED_FULL, blocks, runs, tail_at=tail_at, tail_size=len(tail))

    def _store_zeros(self, run: Run) -> Run:
        """Return the run that stores the zeros of `run`.

        Zeros of each length are stored once, in one block behind the current batch.
        """
        stored = self._zero_runs.get(run.length)
        if stored is None:
            if run.length <= BLOCK_SIZE:
                stored = Run(Storage.PLAIN, run.length, self.next_block, 1)
                data = bytes(BLOCK_SIZE)
            else:
                assert self._codec is not None
                data = self._codec(bytes(run.length)).rjust(BLOCK_SIZE, b"\0")
                assert len(data) == BLOCK_SIZE
                stored = Run(Storage.COMPRESSED, run.length, self.next_block, 1)
            self._out.write(data)
            self.next_block += 1
            self._zero_runs[run.length] = stored
        return stored


_FULL_ZERO: dict[int, Run] = {}
"""One object for all full clusters of zeros, by cluster size: a file with terabytes of holes is a list of them."""


def _read(entry: Entry, offset: int, length: int) -> bytes:
    content = entry.content
    assert content is not None
    data = content.pread(length, offset)
    if len(data) == length:
        return data
    return _read_rest(entry, content, data, offset, length)


def _read_rest(entry: Entry, content: Content, data: bytes, offset: int, length: int) -> bytes:
    parts = [data]
    have = len(data)
    while have < length:
        data = content.pread(length - have, offset + have)
        if not data:
            raise ErofsError(
                f"{shown(entry.path)} has {offset + have} bytes, not the {entry.size} it should have",
                rule="short-content",
            )
        parts.append(data)
        have += len(data)
    if have > length:
        raise ErofsError(f"{shown(entry.path)} gave more bytes than asked for", rule="short-content")
    return b"".join(parts)


def _batches(nodes: Iterable[DataNode], cluster: int, *, merge: bool) -> Iterator[list[_Piece]]:
    """Divide files into pieces, and put pieces together into batches of about `_BATCH_BYTES`."""
    batch: list[_Piece] = []
    room = _BATCH_BYTES
    for node in nodes:
        size = node.entry.size
        start = offset = 0
        lengths: list[int] = []
        while offset < size:
            length = min(cluster, size - offset)
            # A short last cluster is joined to the one before it, for fewer and fuller physical clusters.
            if merge and 0 < size - offset - length < cluster // 2:
                length = size - offset
            lengths.append(length)
            offset += length
            room -= length
            if room <= 0 and offset < size:
                batch.append(_Piece(node, start, lengths, last=False))
                yield batch
                batch, room, start, lengths = [], _BATCH_BYTES, offset, []
        batch.append(_Piece(node, start, lengths, last=True))
        if room <= 0 or len(batch) >= _BATCH_PIECES:
            yield batch
            batch, room = [], _BATCH_BYTES
    if batch:
        yield batch


def _find_twins(nodes: Iterable[DataNode], pool: ThreadPoolExecutor) -> dict[int, DataNode]:
    """Return the files that equal an earlier file: their id() and that earlier file.

    Only files of equal size are read.
    """
    by_size: dict[int, list[DataNode]] = {}
    for node in nodes:
        if node.entry.size >= _SHARED_MIN:
            by_size.setdefault(node.entry.size, []).append(node)
    candidates = [node for same in by_size.values() if len(same) > 1 for node in same]
    groups = [candidates[at : at + 32] for at in range(0, len(candidates), 32)]
    first: dict[tuple[int, bytes], DataNode] = {}
    twins: dict[int, DataNode] = {}
    for group, digests in zip(groups, pool.map(_digests, groups), strict=True):
        for node, digest in zip(group, digests, strict=True):
            earlier = first.setdefault((node.entry.size, digest), node)
            if earlier is not node:
                twins[id(node)] = earlier
    return twins


def _digests(nodes: list[DataNode]) -> list[bytes]:
    digests = []
    for node in nodes:
        digest = hashlib.sha256()
        for offset in range(0, node.entry.size, _HASH_PIECE):
            digest.update(_read(node.entry, offset, min(_HASH_PIECE, node.entry.size - offset)))
        digests.append(digest.digest())
    return digests
