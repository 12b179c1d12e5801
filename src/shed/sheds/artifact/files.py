"""Saving a snapshot to a file: an OCI archive of the artifact, which `skopeo copy oci-archive:FILE …` takes as well."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from shed.fsutil import storage_errors
from shed.oci import media
from shed.oci.archivewrite import ArchiveWriter, blob_name, writing
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes
from shed.oci.manifest import REF_NAME, Index
from shed.progress import Progress, Stop
from shed.sheds.artifact.cutting import cut
from shed.sheds.artifact.document import CONFIG, SNAPSHOT
from shed.sheds.snapshotstore import SnapshotStore


def save_snapshot(
    store: SnapshotStore, name: str, output: BinaryIO, progress: Progress, stop: Stop, *, memory: bool = False
) -> Digest:
    """Write the snapshot `name` to `output`, with its `memory` if asked, and return the digest of its manifest.

    The same snapshot gives the same bytes.  What puts the chunks together comes last, so that a file that was cut off
    is never taken for complete.  Raises `NotFoundError`, `DataError`, `StorageError`.
    """
    snapshot, files = store.files(name, memory=memory)
    archive = ArchiveWriter(output)
    progress.phase("chunks", f"saving {name}")
    with storage_errors(store.upper(name)):
        artifact = cut(snapshot, files, _Writer(archive), progress, stop)
    config = artifact.config()
    manifest = artifact.manifest(Descriptor(CONFIG, digest_bytes(config), len(config)))
    for document in (config, manifest):
        archive.add(blob_name(digest_bytes(document)), document)
    digest = digest_bytes(manifest)
    entry = Descriptor(media.MANIFEST, digest, len(manifest), {REF_NAME: name}, artifact_type=SNAPSHOT)
    archive.add("index.json", Index((entry,)).encode())
    archive.finish()
    progress.finish()
    return digest


def save_to_file(
    store: SnapshotStore, name: str, path: Path, progress: Progress, stop: Stop, *, memory: bool = False
) -> Digest:
    """Save the snapshot `name` to the file `path`, which appears when it is complete; see `save_snapshot`."""
    with writing(path) as output:
        return save_snapshot(store, name, output, progress, stop, memory=memory)


class _Writer:
    """Writes chunks to an archive, one after another."""

    def __init__(self, archive: ArchiveWriter) -> None:
        self._archive = archive

    def known(self, content: Digest) -> Descriptor | None:
        """Nothing is there before."""
        return None

    def take(self, blob: Descriptor, data: bytes) -> None:
        """Add a blob."""
        self._archive.add(blob_name(blob.digest), data)
