"""Storing one blob: in one stream, as docker does, and after a cut, or where the registry refuses streams, in chunks.

A stream is what every registry takes, of any length.  Chunks are small because of the registries that limit them
(ghcr.io: 4 MiB). Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from shed.errors import RegistryError, StorageError
from shed.oci.content import Source
from shed.oci.digest import Digest
from shed.oci.fields import MAX_SIZE
from shed.oci.registry.connections import CHUNK
from shed.oci.registry.session import MAX_ERROR, Session
from shed.oci.registry.transport import Answer, resolve
from shed.untrusted import number

_SMALL = 1 << 20
"""Up to so many bytes, a blob goes along with the request that completes it."""
_PIECE = 4 << 20
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
_NO_STREAMS = frozenset({400, 405, 411, 413, 416})
"""Statuses of registries, and of proxies before them, that want chunks."""
_BYTES = {"Content-Type": "application/octet-stream"}


class Upload:
    """One blob on its way from `source` into a repository."""

    def __init__(self, session: Session, digest: Digest, source: Source, on_bytes: Callable[[int], object]) -> None:
        self._session = session
        self._digest = digest
        self._source = source
        self._on_bytes = on_bytes
        self._what = session.what_blob(digest)
        self._location: str | None = None
        self._offset = 0
        """Bytes that the registry has said it holds."""
        self._sent = 0
        """Bytes that were sent at least once."""
        self._piece = _PIECE
        self._streams = True

    def run(self) -> None:
        """Store the blob.  Raises `RegistryError`, and `StorageError` when the source cannot be read."""
        self._session.retried(self._attempt, done=lambda: self._offset)

    def _attempt(self) -> None:
        if self._location is None or not self._resumed():
            self._begin()
        if self._source.size <= _SMALL:
            self._complete(_Part(self, 0, self._source.size))
            return
        if not self._offset and self._streams:
            self._streams = self._patch(self._source.size, stream=True)
            if not self._streams:
                self._begin()
        while self._offset < self._source.size:
            self._patch(min(self._piece, self._source.size - self._offset))
        self._complete(None)

    def _begin(self) -> None:
        with self._session.send(self._what, "POST", f"{self._session.base}/blobs/uploads/") as answer:
            self._session.expect(self._what, answer, 202)
            answer.read(MAX_ERROR)
        self._location, self._offset = self._session.location(answer), 0
        self._piece = max(_PIECE, number(answer.headers.get("OCI-Chunk-Min-Length", ""), 0, MAX_SIZE) or 0)

    def _resumed(self) -> bool:
        """Ask the registry how much it has; return whether the upload can go on from there."""
        assert self._location is not None
        if self._source.size <= _SMALL:
            return False
        try:
            with self._session.send(self._what, "GET", self._location) as answer:
                answer.read(MAX_ERROR)
        except RegistryError:
            return False
        if answer.status not in (200, 204) or _held(answer) > self._source.size:
            return False
        self._offset = _held(answer)
        self._location = resolve(self._location, answer.headers.get("Location", ""))
        return True

    def _patch(self, size: int, *, stream: bool = False) -> bool:
        """Send the next `size` bytes; return False when the registry does not take them as a stream."""
        assert self._location is not None
        start = self._offset
        headers = _BYTES if stream else {**_BYTES, "Content-Range": f"{start}-{start + size - 1}"}
        with self._session.send(self._what, "PATCH", self._location, headers, body=_Part(self, start, size)) as answer:
            if stream and answer.status in _NO_STREAMS:
                return False
            self._session.expect(self._what, answer, 202, 201, 204)
            answer.read(MAX_ERROR)
        self._location = self._session.location(answer)
        self._offset = _held(answer) if "Range" in answer.headers else start + size
        if not start < self._offset <= start + size:
            raise RegistryError(
                f"{self._what}: the registry says it has {self._offset} bytes after {start + size} were sent"
            )
        return True

    def _complete(self, body: _Part | None) -> None:
        assert self._location is not None
        url = f"{self._location}{'&' if '?' in self._location else '?'}digest={self._digest}"
        with self._session.send(self._what, "PUT", url, _BYTES, body=body or b"") as answer:
            self._session.expect(self._what, answer, 201, 200, 204)
            answer.read(MAX_ERROR)

    def read(self, length: int, offset: int) -> bytes:
        """Return bytes of the source, counting those that were never sent before."""
        try:
            data = self._source.pread(length, offset)
        except OSError as error:
            raise StorageError(f"cannot read {self._what}: {error.strerror}", hint="check the disk") from None
        if not data:
            raise StorageError(f"{self._what} was cut while it was read", hint="build or pull the image again")
        end = offset + len(data)
        if end > self._sent:
            self._on_bytes(end - self._sent)
            self._sent = end
        return data


class _Part:
    """`size` bytes from `start` of an upload's source, as the body of a request."""

    def __init__(self, upload: Upload, start: int, size: int) -> None:
        self.size = size
        self._upload = upload
        self._start = start

    def open(self) -> _Reader:
        return _Reader(self._upload, self._start, self._start + self.size)


class _Reader:
    def __init__(self, upload: Upload, position: int, end: int) -> None:
        self._upload = upload
        self._position = position
        self._end = end

    def read(self, size: int = -1, /) -> bytes:
        size = min(CHUNK if size < 0 else size, self._end - self._position)
        if not size:
            return b""
        data = self._upload.read(size, self._position)
        self._position += len(data)
        return data


def _held(answer: Answer) -> int:
    """Return how many bytes the registry has; ``0-0`` is what registries say of none."""
    match = _RANGE.fullmatch(answer.headers.get("Range", ""))
    last = int(match[1]) if match else 0
    return last + 1 if last else 0
