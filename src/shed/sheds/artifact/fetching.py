"""Where a snapshot comes from: a repository of a registry, or an archive."""

from __future__ import annotations

from typing import Protocol

from shed.errors import DataError
from shed.oci.archive import read_blob, read_index
from shed.oci.content import Archive
from shed.oci.descriptor import Descriptor
from shed.oci.digest import short
from shed.oci.fields import MAX_JSON
from shed.oci.registry.client import Repository
from shed.sheds.artifact.document import Artifact, Manifest


class Origin(Protocol):
    """Has the blobs of a snapshot."""

    name: str
    """For messages."""

    def artifact(self) -> Artifact:
        """Return what it has.  Raises `DataError`, also for something else than a snapshot."""
        ...

    def blob(self, descriptor: Descriptor) -> bytes:
        """Return a blob, verified.  Raises `DataError`."""
        ...


class Registry:
    """The snapshot that the reference of `repository` means."""

    def __init__(self, repository: Repository) -> None:
        self.name = str(repository.reference)
        self._repository = repository

    def artifact(self) -> Artifact:
        """Return the snapshot.  Raises `DataError`, `NotFoundError`, and what a `Repository` does."""
        reference = self._repository.reference
        found = self._repository.get_manifest(reference.digest or reference.tag)
        return _artifact(self, found.data)

    def blob(self, descriptor: Descriptor) -> bytes:
        """Return a blob, verified."""
        return self._repository.read_blob(descriptor.digest, descriptor.size)


class File:
    """The snapshot of an archive, or of a layout folder."""

    def __init__(self, archive: Archive) -> None:
        self.name = archive.name
        self._archive = archive

    def artifact(self) -> Artifact:
        """Return the only snapshot.  Raises `DataError`."""
        found = read_index(self._archive).manifests
        if len(found) != 1:
            raise DataError(
                f"{self.name} has {len(found)} entries, and not one snapshot",
                code="NO_SNAPSHOT",
                hint="make it by: shed snapshot save SNAPSHOT -o FILE",
            )
        return _artifact(self, self.blob(found[0]))

    def blob(self, descriptor: Descriptor) -> bytes:
        """Return a blob, verified."""
        return read_blob(self._archive, descriptor, "blob")


def _artifact(origin: Origin, data: bytes) -> Artifact:
    what = f"the manifest of {origin.name}"
    manifest = Manifest.parse(data, what)
    if manifest.config.size > MAX_JSON:
        raise DataError(f"{what}: its config is too large")
    return manifest.artifact(
        origin.blob(manifest.config), f"the config {short(manifest.config.digest)} of {origin.name}"
    )
