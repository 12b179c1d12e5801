"""One repository of a registry, by the OCI distribution specification.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from shed.errors import DataError, NotFoundError, RegistryError
from shed.oci import media
from shed.oci.content import Source
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes, is_digest, mismatch, parse_digest
from shed.oci.fields import MAX_SIZE
from shed.oci.registry.credentials import Credentials
from shed.oci.registry.download import Download, Memory, Sink
from shed.oci.registry.errors import WAITS
from shed.oci.registry.reference import Reference
from shed.oci.registry.session import MAX_ERROR, Session
from shed.oci.registry.upload import Upload
from shed.untrusted import number

MAX_MANIFEST = 4 << 20
"""Most bytes of a manifest, as in the specification."""
_ACCEPT = {"Accept": ", ".join((media.INDEX, media.MANIFEST, media.DOCKER_INDEX, media.DOCKER_MANIFEST))}


def _ignore(count: int) -> None:
    """Take the progress of a transfer that nobody watches."""


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest or an index, byte for byte as the registry has it."""

    data: bytes
    media_type: str
    digest: Digest


class Repository:
    """The repository of `reference`; usable by several threads.

    `push` asks for the right to write.  Credentials are those that docker or podman keep, unless given.  The registry
    may lead to `private_hosts`, even if it is not inside itself; see `shed.oci.registry.connections`.  Faults that may
    pass are tried three times, after `waits` in seconds, by `sleep`.  Connections are kept for the next request, and
    closed when a ``with`` block ends. Every method raises `RegistryError` when it is refused, `UnavailableError` when
    the registry cannot be reached.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        push: bool = False,
        insecure: bool = False,
        credentials: Credentials | None = None,
        private_hosts: Collection[str] = (),
        waits: Sequence[float] = WAITS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.reference = reference
        self._session = Session(
            reference,
            push=push,
            insecure=insecure,
            credentials=credentials,
            private_hosts=private_hosts,
            waits=waits,
            sleep=sleep,
        )

    def abort(self) -> None:
        """Cut all connections: what is under way fails at once, as if the network had gone."""
        self._session.abort()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get_manifest(self, target: str) -> RemoteManifest:
        """Return the manifest or index with the tag or digest `target`, verified.

        Raises `NotFoundError` and `DataError`.
        """
        what = self._session.what_manifest(target)

        def get() -> tuple[bytes, Mapping[str, str]]:
            with self._session.send(what, "GET", self._manifest(target), _ACCEPT) as answer:
                self._session.expect(what, answer, 200)
                return answer.read(MAX_MANIFEST), answer.headers

        data, headers = self._session.retried(get)
        if len(data) > MAX_MANIFEST:
            raise DataError(f"{what} is larger than {MAX_MANIFEST >> 20} MiB", hint="this is no image manifest")
        digest = digest_bytes(data)
        for wanted in (target, headers.get("Docker-Content-Digest", "")):
            if is_digest(wanted) and wanted != digest:
                raise mismatch(f"{what} from {self.reference.registry}", wanted, digest)
        return RemoteManifest(data, headers.get("Content-Type", "").partition(";")[0].strip(), digest)

    def head_manifest(self, target: str) -> Descriptor | None:
        """Return what the registry says of the manifest `target`, None when it has none."""
        what = self._session.what_manifest(target)

        def head() -> Mapping[str, str] | None:
            with self._session.send(what, "HEAD", self._manifest(target), _ACCEPT) as answer:
                if answer.status != 404:
                    self._session.expect(what, answer, 200)
                return None if answer.status == 404 else answer.headers

        headers = self._session.retried(head)
        if headers is None:
            return None
        return Descriptor(
            headers.get("Content-Type", ""), parse_digest(headers.get("Docker-Content-Digest")), _length(headers)
        )

    def put_manifest(self, target: str, data: bytes, media_type: str) -> Digest:
        """Store `data` as the manifest `target`, a tag or its own digest; return its digest."""
        what = self._session.what_manifest(target)

        def put() -> None:
            with self._session.send(
                what, "PUT", self._manifest(target), {"Content-Type": media_type}, body=data
            ) as answer:
                self._session.expect(what, answer, 201, 200, 202, 204)
                answer.read(MAX_ERROR)

        self._session.retried(put)
        return digest_bytes(data)

    def has_blob(self, digest: Digest) -> int | None:
        """Return the size of a blob, 0 when the registry does not say, None when it does not have it."""
        what = self._session.what_blob(digest)

        def head() -> int | None:
            with self._session.send(what, "HEAD", f"{self._session.base}/blobs/{digest}") as answer:
                if answer.status != 404:
                    self._session.expect(what, answer, 200)
                return None if answer.status == 404 else _length(answer.headers)

        return self._session.retried(head)

    def fetch_blob(
        self,
        digest: Digest,
        sink: Sink,
        *,
        size: int | None = None,
        start: int = 0,
        on_bytes: Callable[[int], object] = _ignore,
    ) -> int:
        """Write a blob to `sink`, which has its first `start` bytes already, and return its size.

        The digest is verified, and `size` where it is given.

        Raises `NotFoundError`, and `DataError` when it has not the digest, or not the `size`.
        """
        return Download(self._session, digest, size, sink, start=start, on_bytes=on_bytes).run()

    def read_blob(self, digest: Digest, size: int) -> bytes:
        """Return a small blob of `size` bytes, verified.  Raises as `fetch_blob` does."""
        memory = Memory()
        self.fetch_blob(digest, memory, size=size)
        return bytes(memory.data)

    def mount_blob(self, digest: Digest, repository: str) -> bool:
        """Have the registry take a blob over from another of its repositories; return whether it did.

        Any refusal is just a no.
        """
        what = self._session.what_blob(digest)
        url = f"{self._session.base}/blobs/uploads/?{urlencode({'mount': digest, 'from': repository})}"
        scope = (f"repository:{repository}:pull",)

        def mount() -> bool:
            with self._session.send(what, "POST", url, scopes=scope) as answer:
                answer.read(MAX_ERROR)
            if answer.status == 202:  # the registry began an upload instead
                with self._session.send(what, "DELETE", self._session.location(answer)) as gone:
                    gone.read(MAX_ERROR)
            return answer.status == 201

        try:
            return self._session.retried(mount)
        except (RegistryError, NotFoundError):
            return False

    def upload_blob(self, digest: Digest, source: Source, *, on_bytes: Callable[[int], object] = _ignore) -> None:
        """Store a blob.  Raises `StorageError` when `source` cannot be read."""
        Upload(self._session, digest, source, on_bytes).run()

    def _manifest(self, target: str) -> str:
        return f"{self._session.base}/manifests/{target}"


def _length(headers: Mapping[str, str]) -> int:
    if "Content-Encoding" in headers:  # it is that of what a proxy made of it
        return 0
    return number(headers.get("Content-Length", ""), 0, MAX_SIZE) or 0
