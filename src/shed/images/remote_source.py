"""An image of a registry as an archive to mint from: its config and layers, fetched to unnamed files and verified."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from shed.budget import Budget
from shed.images.remote import find_remote
from shed.images.transfer import Counter, at_once
from shed.oci import media
from shed.oci.archive import Archive
from shed.oci.choose import Chosen
from shed.oci.content import FileSlice
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, hex_of
from shed.oci.manifest import Index
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from shed.oci.store import LayoutStore
from shed.oci.unpack import Spool
from shed.progress import Progress, Stop


@contextlib.contextmanager
def open_remote(
    reference: str, *, platform: Platform | None, store: LayoutStore, insecure: bool = False, progress: Progress
) -> Iterator[Archive]:
    """Yield the image `reference` of a registry, chosen for `platform` as `shed.oci.choose` says, as an archive that holds it alone.

    All of it is fetched, within what `store` allows an image, and verified, before the block begins; the files are on
    the store's disk and vanish with the block. Raises `NotFoundError`, `RegistryError` and `UnavailableError`,
    `DataError` when it is damaged, and `UsageError` when no image fits.
    """
    remote = parse_reference(reference)
    stop = Stop()
    with contextlib.ExitStack() as stack:
        repository = stack.enter_context(
            Repository(remote, insecure=insecure, private_hosts=store.limits.private_hosts, sleep=stop.sleep)
        )
        stop.also(repository.abort)
        progress.phase("manifest", f"looking up {remote}")
        chosen = find_remote(repository, platform)
        layers = {layer.digest: layer.size for layer in chosen.manifest.layers}
        progress.phase("download", f"downloading {remote}")
        counter = Counter(progress, "layers", sum(layers.values()), stop)
        budget = store.budget()
        budget.expect(sum(layers.values()))
        archive = _Fetched(str(remote), store.scratch(), stack)
        spools = {digest: archive.spool(digest, budget) for digest in layers}

        def fetch(digest: Digest) -> None:
            repository.fetch_blob(digest, spools[digest], size=layers[digest], on_bytes=counter.add)

        at_once(fetch, sorted(layers, key=lambda digest: -layers[digest]), stop)
        archive.finish(chosen, budget)
        yield archive


class _Fetched:
    """The files of a layout, held as unnamed files."""

    def __init__(self, name: str, scratch: Path, stack: contextlib.ExitStack) -> None:
        self.name = name
        self._scratch = scratch
        self._stack = stack
        self._spools: dict[str, Spool] = {}
        self._files: dict[str, FileSlice] = {}

    def file(self, path: str) -> FileSlice | None:
        return self._files.get(path)

    def spool(self, digest: Digest, budget: Budget) -> Spool:
        """Return the file of a blob, to be written to."""
        return self._spool(_blob(digest), budget)

    def finish(self, chosen: Chosen, budget: Budget) -> None:
        """Add manifest, config and index; then all files can be read."""
        self.spool(chosen.digest, budget).write(chosen.manifest_bytes)
        self.spool(chosen.manifest.config.digest, budget).write(chosen.config_bytes)
        entry = Descriptor(media.MANIFEST, chosen.digest, len(chosen.manifest_bytes), platform=chosen.config.platform)
        self._spool("index.json", budget).write(Index((entry,)).encode())
        self._files = {path: spool.finish() for path, spool in self._spools.items()}

    def _spool(self, path: str, budget: Budget) -> Spool:
        spool = self._spools[path] = self._stack.enter_context(Spool(self._scratch, budget))
        return spool


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"
