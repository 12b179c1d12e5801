"""From names of features to their files: those of a project, and those that these depend on.

Published ones are artifacts of a registry: https://containers.dev/implementors/features-distribution/.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shed.budget import Budget
from shed.errors import DataError, UsageError
from shed.images.devcontainer.feature import METADATA, SCRIPT, Feature, Metadata
from shed.images.devcontainer.files import copy_feature, counting, tree_digest, unpack_feature
from shed.images.devcontainer.order import Key, install_order, without_version
from shed.images.devcontainer.project import Project, below
from shed.images.devcontainer.values import Options
from shed.images.remote import told_plainly
from shed.oci.decompression import Spool
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest
from shed.oci.fields import Fields, decode_object
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import DOCKER_HUB, Reference, parse_reference
from shed.oci.store import LayoutStore
from shed.oci.unpack_limits import Unpacking
from shed.progress import Progress
from shed.text import visible
from shed.untrusted import told

CONFIG_TYPE = "application/vnd.devcontainers"
LAYER_TYPE = "application/vnd.devcontainers.layer.v1+tar"
MOST_ARCHIVE = 64 << 20
"""Most bytes of a feature as it is published."""
_MOST_FEATURES = 100
MOST_UNPACKED = 2 << 30
"""Most bytes that all features of a project may come to; archives that are unpacked on the way count, too."""
_FOLDER = ("./", "../")
_WRITE = "write REGISTRY/NAMESPACE/ID:VERSION"


@dataclass(frozen=True, slots=True)
class _Found:
    """A feature's files, however it is asked for."""

    resource: str
    tag: str
    digest: Digest
    integrity: Digest | None
    metadata: Metadata
    folder: Path


class Resolver:
    """Brings the features of `project` into folders below `place`, which exists.

    `locked` says which manifests names stand for.
    """

    def __init__(
        self, project: Project, place: Path, store: LayoutStore, locked: Mapping[str, Digest], progress: Progress
    ) -> None:
        self._project = project
        self._place = place
        self._store = store
        self._locked = locked
        self._progress = progress
        self._found: dict[str, _Found] = {}
        self._pulled: dict[Digest, tuple[Metadata, Path]] = {}
        """By manifest: several names may mean one."""
        self._left = MOST_UNPACKED

    def run(self) -> list[Feature]:
        """Return the features in the order in which they are installed.

        Raises `UsageError` and `DataError` for what the project or a feature says, `NotFoundError`, `RegistryError` and
        `UnavailableError` for what a registry does not give.
        """
        features: dict[Key, Feature] = {}
        hard: dict[Key, list[Key]] = {}
        waiting = [(name, options, True) for name, options in self._project.features.items()]
        names: dict[tuple[str, tuple[tuple[str, str], ...]], Key] = {}
        while waiting:
            name, options, own = waiting.pop(0)
            feature = self._feature(name, options, own=own)
            names[name, tuple(sorted(options.items()))] = feature.key
            if feature.key in features:
                continue
            features[feature.key] = feature
            if len(features) > _MOST_FEATURES:
                raise UsageError(f"there are more than {_MOST_FEATURES} features, with what they depend on")
            waiting += [(on, given, feature.integrity is None) for on, given in feature.metadata.depends_on.items()]
        for key, feature in features.items():
            needed = feature.metadata.depends_on.items()
            hard[key] = [names[on, tuple(sorted(given.items()))] for on, given in needed]
        return install_order([*features.values()], hard, self._project.order)

    def _feature(self, name: str, options: Options, *, own: bool) -> Feature:
        if visible(name) != name:
            raise UsageError(f"feature {told(name)} has a name that cannot be shown")
        if not own and name.startswith(_FOLDER):
            raise UsageError(f"a published feature cannot depend on {name}, which is a folder")
        if name not in self._found:
            if len(self._found) == _MOST_FEATURES:
                raise UsageError(f"there are more than {_MOST_FEATURES} names of features, with what they depend on")
            self._found[name] = self._fetch(name)
        found = self._found[name]
        return Feature(
            name, found.resource, found.tag, found.digest, found.integrity, options, found.metadata, found.folder
        )

    def _fetch(self, name: str) -> _Found:
        if name.startswith(_FOLDER):
            return self._copy(name)
        if "://" in name:
            raise UsageError(
                f"feature {told(name)}: only features of registries and folders are taken",
                hint="write REGISTRY/NAMESPACE/ID:VERSION, or unpack it below .devcontainer and write ./ID",
            )
        try:
            reference = parse_reference(name.lower())
        except UsageError as error:
            raise UsageError(f"feature {told(name)}: {error.message}", hint=_WRITE) from None
        if reference.registry == DOCKER_HUB and not name.lower().startswith(DOCKER_HUB):
            raise UsageError(f"feature {told(name)} names no registry", hint=_WRITE)
        return self._pull(name, reference)

    def _copy(self, name: str) -> _Found:
        what = f"feature {told(name)}"
        try:
            source = below(self._project.folder / ".devcontainer", self._project.file.parent, name, what)
        except ValueError:
            raise UsageError(f"{what} is not below the project's folder .devcontainer") from None
        if not source.is_dir():
            raise UsageError(f"{what} is not a folder of the project")
        folder = self._new_folder()
        with self._unpacking() as unpacking:
            copy_feature(self._project.folder, source, folder, unpacking.part(what))
        return _Found(without_version(name), "", tree_digest(folder), None, _metadata(folder, what), folder)

    @told_plainly()
    def _pull(self, name: str, reference: Reference) -> _Found:
        what = f"feature {told(name)}"
        if locked := self._locked.get(name.lower()):
            reference = replace(reference, digest=locked)
        self._progress.phase("features", f"getting {what}")
        with Repository(reference, private_hosts=self._store.limits.private_hosts) as repository:
            manifest = repository.get_manifest(reference.target)
            if manifest.digest not in self._pulled:
                layer = _layer(manifest.data, what)
                folder, scratch = self._new_folder(), self._store.scratch()
                with Spool(scratch, Budget(layer.size)) as spool, self._unpacking() as unpacking:
                    repository.fetch_blob(layer.digest, spool, size=layer.size)
                    unpack_feature(spool.finish(), folder, scratch, unpacking.part(what))
                self._pulled[manifest.digest] = _metadata(folder, what), folder
        resource, (metadata, folder) = without_version(reference.name), self._pulled[manifest.digest]
        return _Found(resource, reference.tag, manifest.digest, manifest.digest, metadata, folder)

    @contextlib.contextmanager
    def _unpacking(self) -> Iterator[Unpacking]:
        """Yield what counts one feature, and take that from what the project may have."""
        unpacking = counting(self._store.reserve, self._left)
        yield unpacking
        self._left -= unpacking.unpacked

    def _new_folder(self) -> Path:
        return self._place / str(len(self._found) + 1) / "feature"


def _layer(data: bytes, what: str) -> Descriptor:
    """Return the archive that the manifest of a feature names.  Raises `DataError`."""
    fields = Fields(decode_object(data, f"manifest of {what}"), f"manifest of {what}")
    layers = fields.items("layers", 1) if "layers" in fields.value else []
    kind = Fields(fields.object("config"), what).text("mediaType", "") if "config" in fields.value else ""
    if kind != CONFIG_TYPE or len(layers) != 1:
        raise DataError(f"{what} is no feature: {told(kind) or 'another kind of artifact'}", hint="check its name")
    layer = Descriptor.parse(layers[0], f"{what}: layer")
    if layer.media_type != LAYER_TYPE:
        raise DataError(f"{what} is no feature: its layer is {told(layer.media_type)}", hint="check its name")
    if layer.size > MOST_ARCHIVE:
        raise DataError(f"{what} has {layer.size >> 20} MiB, {MOST_ARCHIVE >> 20} are the most")
    return layer


def _metadata(folder: Path, what: str) -> Metadata:
    """Return what a feature's files say of it.  Raises `DataError`."""
    for name in (METADATA, SCRIPT):
        if not (folder / name).is_file():
            raise DataError(f"{what} has no {name}", hint="this is no feature, or not all of it")
    try:
        return Metadata.parse((folder / METADATA).read_bytes())
    except ValueError as error:
        raise DataError(f"{what}: {METADATA}: {error}") from None
