"""Pushing a snapshot to a registry: the chunks that it lacks, what puts them together, and the tag last."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from shed.budget import Limits
from shed.errors import DataError, NotFoundError, UsageError
from shed.fsutil import storage_errors
from shed.oci import media
from shed.oci.content import BytesSource
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from shed.progress import Progress, Stop
from shed.sheds.artifact.cutting import cut
from shed.sheds.artifact.document import CONFIG
from shed.sheds.artifact.fetching import Registry
from shed.sheds.snapshotstore import SnapshotStore

AT_ONCE = 4
"""Chunks that are sent at a time: of a mebibyte each, waiting for an answer takes as long as sending."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was pushed."""

    name: str
    destination: str
    digest: Digest
    """Of the manifest."""
    chunks: int
    """Different chunks of the disk, and of the memory."""
    uploaded: int
    """Those of them that the registry did not have."""
    uploaded_bytes: int
    timings: dict[str, float]
    """Milliseconds by phase."""


def push_snapshot(
    store: SnapshotStore,
    name: str,
    destination: str,
    limits: Limits,
    *,
    memory: bool = False,
    insecure: bool = False,
    progress: Progress,
    stop: Stop,
) -> Pushed:
    """Push the snapshot `name` to `destination`, ``registry/repository[:tag]``, with its `memory` if asked.

    What the tag meant before is asked first: chunks of it are neither packed nor sent again.  Raises `NotFoundError`,
    `UsageError` for a destination that is a digest, `RegistryError` and `UnavailableError`; then the tag means what it
    did, and what was sent need not be sent again.
    """
    reference = parse_reference(destination)
    if reference.digest:
        raise UsageError(
            f"cannot push to {destination!r}: a digest is not a name", hint="push to a tag: registry/repository:tag"
        )
    snapshot, files = store.files(name, memory=memory)
    with Repository(
        reference, push=True, insecure=insecure, private_hosts=limits.private_hosts, sleep=stop.sleep
    ) as repository:
        stop.add_callback(repository.abort)
        progress.phase("check", f"looking up {reference}")
        sender = _Sender(repository)
        progress.phase("chunks", f"pushing to {reference}")
        with storage_errors(store.upper(name)):
            artifact = cut(snapshot, files, sender, progress, stop, threads=AT_ONCE)
        progress.phase("manifest", f"naming it {reference}")
        config = artifact.config()
        described = Descriptor(CONFIG, digest_bytes(config), len(config))
        sender.take(described, config)
        digest = repository.put_manifest(reference.tag, artifact.manifest(described), media.MANIFEST)
    return Pushed(
        name,
        str(reference),
        digest,
        len(artifact.chunks),
        sender.uploaded,
        sender.uploaded_bytes,
        progress.finish(),
    )


class _Sender:
    """Sends chunks to a repository, but for those that it has."""

    def __init__(self, repository: Repository) -> None:
        self.uploaded = 0
        self.uploaded_bytes = 0
        self._repository = repository
        self._lock = threading.Lock()
        self._before = _before(repository)

    def known(self, content: Digest) -> Descriptor | None:
        """Return the blob of a chunk of what the tag means now."""
        return self._before.get(content)

    def take(self, blob: Descriptor, data: bytes) -> None:
        """Have the registry hold a blob."""
        if self._repository.has_blob(blob.digest) is not None:
            return
        self._repository.upload_blob(blob.digest, BytesSource(data))
        with self._lock:
            self.uploaded += 1
            self.uploaded_bytes += len(data)


def _before(repository: Repository) -> dict[Digest, Descriptor]:
    """Return the chunks of the snapshot that the tag means now; none when it means nothing, or something else."""
    try:
        artifact = Registry(repository).artifact()
    except (NotFoundError, DataError):
        return {}
    return {chunk.content: chunk.blob for chunk in artifact.chunks}
