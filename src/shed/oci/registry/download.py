"""Fetching one blob: verified while it streams, and taken up where it was cut, also where an earlier download was."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from shed.errors import DataError, RegistryError, UnavailableError
from shed.oci.digest import Digest, digest_bytes, mismatch
from shed.oci.fields import MAX_SIZE
from shed.oci.registry.errors import TransientError
from shed.oci.registry.session import Session
from shed.oci.registry.transport import Answer
from shed.untrusted import number

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class Sink(Protocol):
    """Where a blob goes: a `StagedBlob`, a `Spool`."""

    def write(self, data: bytes, /) -> None:
        """Append `data`."""
        ...

    def digest(self) -> Digest:
        """Return the digest of what was written."""
        ...


class Memory:
    """A small blob, as it comes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, /) -> None:
        """Append `data`."""
        self.data += data

    def digest(self) -> Digest:
        """Return the digest of what was written."""
        return digest_bytes(bytes(self.data))


class Download:
    """One blob on its way from a repository into `sink`, which has `start` bytes of it."""

    def __init__(
        self,
        session: Session,
        digest: Digest,
        size: int | None,
        sink: Sink,
        *,
        start: int,
        on_bytes: Callable[[int], object],
    ) -> None:
        self._session = session
        self._digest = digest
        self._size = size
        self._sink = sink
        self._on_bytes = on_bytes
        self._what = session.what_blob(digest)
        self._done = start
        self._as_sent = False

    def run(self) -> int:
        """Fetch the blob and return its size.

        Raises `DataError` when the registry sends something else, which is not tried again, and `NotFoundError`.
        """
        if self._done != self._size or not self._size:  # of a blob that is here, no range can be asked for
            self._session.retried(self._fetch, done=lambda: self._done)
        if self._sink.digest() != self._digest:
            raise mismatch(f"{self._what} from {self._session.reference.registry}", self._digest, self._sink.digest())
        return self._done

    def _fetch(self) -> None:
        """Fetch what is missing.  What a registry sends again, because it knows no ranges, is skipped."""
        headers = {"Range": f"bytes={self._done}-"} if self._done else {}
        with self._session.send(self._what, "GET", f"{self._session.base}/blobs/{self._digest}", headers) as answer:
            skip = self._begin(answer)
            limit = (MAX_SIZE if self._size is None else self._size) - self._done + skip
            for data in answer.chunks(limit + 1, as_sent=self._as_sent):
                fresh = data[skip:] if skip else data
                skip -= len(data) - len(fresh)
                if self._size is not None and self._done + len(fresh) > self._size:
                    raise self._lie(f"more than {self._size} bytes")
                self._sink.write(fresh)
                self._done += len(fresh)
                self._on_bytes(len(fresh))
        if self._size is not None and self._done < self._size:
            cut = f"{self._what} was cut after {self._done} of {self._size} bytes"
            raise TransientError(
                UnavailableError(cut, code="REGISTRY_UNAVAILABLE", hint="check the network and try again")
            )

    def _begin(self, answer: Answer) -> int:
        """Check what the head of `answer` promises; return how many of its bytes are here already."""
        self._as_sent = False
        if answer.status == 206 and self._done:
            text = answer.headers.get("Content-Range", "")
            match = _CONTENT_RANGE.fullmatch(text)
            if (
                match is None
                or int(match[1]) != self._done
                or (match[3] != "*" and self._size not in (None, int(match[3])))
            ):
                raise RegistryError(f"{self._what}: asked for the bytes from {self._done}, got {text[:100]!r}")
            return 0
        self._session.expect(self._what, answer, 200)
        length = number(answer.headers.get("Content-Length", ""), 0, MAX_SIZE)
        # some stores call a gzipped layer so although it is the blob itself
        self._as_sent = not answer.gzipped or (length is not None and length == self._size)
        if length is not None and self._as_sent:
            if self._size not in (None, length):
                raise self._lie(f"{length} bytes, expected {self._size}")
            self._size = length
        return self._done

    def _lie(self, what: str) -> DataError:
        message = f"{self._what} from {self._session.reference.registry} has {what}"
        return DataError(message, code="SIZE_MISMATCH", hint="the image in the registry is damaged")
