"""Cutting the files of a snapshot into chunks, for a registry or a file that takes them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from shed.images.transfer import Counter, at_once
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes
from shed.progress import Progress, Stop
from shed.sheds.artifact import disk
from shed.sheds.artifact.document import CHUNK, Artifact, Chunk, Part, chunk_size
from shed.sheds.snapshotstore import Snapshot


class Taker(Protocol):
    """Takes chunks; several threads may ask it."""

    def known(self, content: Digest) -> Descriptor | None:
        """Return the blob of a chunk that is there already, None when nobody knows one."""
        ...

    def take(self, blob: Descriptor, data: bytes) -> None:
        """Have the blob `blob`, which is `data`."""
        ...


def cut(
    snapshot: Snapshot, files: Mapping[str, Path], taker: Taker, progress: Progress, stop: Stop, *, threads: int = 1
) -> Artifact:
    """Give the chunks of `files`, the disk first, to `taker`, each once; return what it takes to put them together.

    Raises `OSError`, and what `taker` and `stop` do.
    """
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(path.open("rb", buffering=0)) for name, path in files.items()}
        sizes = {name: os.fstat(file.fileno()).st_size for name, file in opened.items()}
        size = chunk_size(*sizes.values())
        parts = [_Part(file.fileno(), sizes[name], size) for name, file in opened.items()]
        what = "writable layer" if len(parts) == 1 else "disk and memory"
        counter = Counter(progress, what, sum(part.written for part in parts), stop)
        cutting = _Cut(taker)
        for part in parts:
            at_once(partial(cutting.chunk, part, counter), part.numbers, stop, most=threads)
    order: dict[Digest, int] = {}
    cut_parts = [
        Part(
            name,
            part.size,
            size,
            tuple((number, order.setdefault(part.contents[number], len(order))) for number in sorted(part.contents)),
        )
        for name, part in zip(files, parts, strict=True)
    ]
    chunks = tuple(Chunk(content, cutting.blobs[content]) for content in order)
    return Artifact(snapshot, chunks, cut_parts[0], tuple(cut_parts[1:]))


class _Part:
    """One file of `size` bytes that is being cut."""

    def __init__(self, fd: int, size: int, chunk: int) -> None:
        self.fd = fd
        self.size = size
        self.chunk = chunk
        self.numbers = [*disk.written(fd, size, chunk)]
        self.contents: dict[int, Digest] = {}

    @property
    def written(self) -> int:
        """Bytes to be looked at."""
        return sum(map(self.length, self.numbers))

    def length(self, number: int) -> int:
        """Return the bytes of a piece."""
        return min(self.chunk, self.size - number * self.chunk)


class _Cut:
    """Has each content taken once."""

    def __init__(self, taker: Taker) -> None:
        self.blobs: dict[Digest, Descriptor] = {}
        self._taker = taker
        self._taking: dict[Digest, threading.Lock] = {}
        self._lock = threading.Lock()

    def chunk(self, part: _Part, counter: Counter, number: int) -> None:
        """Have the piece `number` of a file taken."""
        length = part.length(number)
        data = disk.read(part.fd, number * part.chunk, length)
        if data.count(0) != length:
            content = digest_bytes(data)
            with self._lock:
                turn = self._taking.setdefault(content, threading.Lock())
            with turn:  # the same content elsewhere waits, and finds the blob
                if content not in self.blobs:
                    self.blobs[content] = self._taker.known(content) or self._packed(data)
            part.contents[number] = content
        counter.add(length)

    def _packed(self, data: bytes) -> Descriptor:
        packed = disk.pack(data)
        blob = Descriptor(CHUNK, digest_bytes(packed), len(packed))
        self._taker.take(blob, packed)
        return blob
