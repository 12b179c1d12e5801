"""Cutting the disk of a snapshot into chunks, for a registry or a file that takes them."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Protocol

from shed.images.transfer import Counter, at_once
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes
from shed.progress import Progress, Stop
from shed.sheds.artifact import disk
from shed.sheds.artifact.document import CHUNK, Artifact, Chunk, chunk_size
from shed.sheds.snapshotstore import Snapshot


class Taker(Protocol):
    """Takes chunks; several threads may ask it."""

    def known(self, content: Digest) -> Descriptor | None:
        """Return the blob of a chunk that is there already, None when nobody knows one."""
        ...

    def take(self, blob: Descriptor, data: bytes) -> None:
        """Have the blob `blob`, which is `data`."""
        ...


def cut(snapshot: Snapshot, upper: Path, taker: Taker, progress: Progress, stop: Stop, *, threads: int = 1) -> Artifact:
    """Give the chunks of the disk `upper` to `taker`, each once, and return what it takes to put them together again.

    Raises `OSError`, and what `taker` and `stop` do.
    """
    with upper.open("rb", buffering=0) as file:
        return _Cut(snapshot, file.fileno(), taker).run(progress, stop, threads)


class _Cut:
    """One disk that is being cut."""

    def __init__(self, snapshot: Snapshot, fd: int, taker: Taker) -> None:
        self._snapshot = snapshot
        self._fd = fd
        self._taker = taker
        self._size = chunk_size(snapshot.size_bytes)
        self._contents: dict[int, Digest] = {}
        self._blobs: dict[Digest, Descriptor] = {}
        self._taking: dict[Digest, threading.Lock] = {}
        self._lock = threading.Lock()

    def run(self, progress: Progress, stop: Stop, threads: int) -> Artifact:
        """Cut it, in `threads` threads."""
        numbers = [*disk.written(self._fd, self._snapshot.size_bytes, self._size)]
        counter = Counter(progress, "writable layer", sum(map(self._length, numbers)), stop)
        at_once(partial(self._chunk, counter), numbers, stop, most=threads)
        order: dict[Digest, int] = {}
        places = []
        for number in sorted(self._contents):
            content = self._contents[number]
            places.append((number, order.setdefault(content, len(order))))
        chunks = tuple(Chunk(content, self._blobs[content]) for content in order)
        return Artifact(self._snapshot, self._size, chunks, tuple(places))

    def _chunk(self, counter: Counter, number: int) -> None:
        length = self._length(number)
        data = disk.read(self._fd, number * self._size, length)
        if data.count(0) != length:
            content = digest_bytes(data)
            with self._lock:
                turn = self._taking.setdefault(content, threading.Lock())
            with turn:  # the same content elsewhere waits, and finds the blob
                if content not in self._blobs:
                    self._blobs[content] = self._taker.known(content) or self._packed(data)
            self._contents[number] = content
        counter.add(length)

    def _packed(self, data: bytes) -> Descriptor:
        packed = disk.pack(data)
        blob = Descriptor(CHUNK, digest_bytes(packed), len(packed))
        self._taker.take(blob, packed)
        return blob

    def _length(self, number: int) -> int:
        return min(self._size, self._snapshot.size_bytes - number * self._size)
