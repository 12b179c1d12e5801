"""The image of a project, from its ``devcontainer.json`` to an archive that can be minted.

1. `prepare` has its features here, in their order, and knows what decides the image: it may be in the store already.
2. `Prepared.build` has the base here (an image of the store or of a registry, or what the builder makes of a
   Dockerfile), and the builder install the features on it.

The base is given to the builder as a layout, so that all builders can build on each of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shed.images.annotations import BootAnnotations
from shed.images.bootkit.kit import Kit
from shed.images.builders.base import Builder, BuildRequest, Show
from shed.images.builders.bases import Base, Layout, find_bases, lay_out, lay_out_archive
from shed.images.builders.build import built
from shed.images.builders.containerfile import takes_context
from shed.images.devcontainer.built import find_image, note_image
from shed.images.devcontainer.feature import Feature
from shed.images.devcontainer.files import copy_context, read_below
from shed.images.devcontainer.identity import base_identity, build_identity, dockerfile, image_key, stored
from shed.images.devcontainer.lock import lock_path, read_lock, write_lock
from shed.images.devcontainer.project import DockerBuild, Project
from shed.images.devcontainer.recipe import BASE, write_context
from shed.images.devcontainer.resolve import Resolver
from shed.images.mint import MintResult
from shed.images.sources import SourceRef, open_source
from shed.images.tags import tag_image
from shed.images.writers import RootWriter
from shed.oci.content import Archive
from shed.oci.digest import Digest
from shed.oci.leases import Lease
from shed.oci.staging import staging_folder
from shed.oci.store import LayoutStore
from shed.progress import Progress

_MOST_IGNORED = 1 << 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """A project whose features are here."""

    project: Project
    features: Sequence[Feature]
    """In the order in which they are installed."""
    found: Digest | None
    """The manifest of its image, if the store has that already."""
    notes: tuple[str, ...]
    """Sentences about what is not done."""
    folder: Path
    """Where the features are."""
    made_with: tuple[str, ...]
    store: LayoutStore
    progress: Progress

    def reuse(self, name: str) -> MintResult:
        """Give the image that was `found` its `name`, and return it as minting would."""
        assert self.found is not None
        tag = self.store.tag(name) if name in self.store.tag_names() else None
        if tag is None or tag.digest != self.found:
            tag_image(self.store, self.found, name)
        manifest = self.store.read_manifest(self.found)
        boot = BootAnnotations.parse(manifest.annotations)
        assert boot.root is not None  # it would not have been found
        layers = sum(layer.size for layer in manifest.layers)
        size, logical = self.store.size(boot.root), boot.logical_size or 0
        return MintResult(name, self.found, boot.root, size, logical, layers, self.progress.finish(), reused=True)

    @contextlib.contextmanager
    def build(self, builder: Builder, name: str, show: Show | None) -> Iterator[tuple[Archive, Digest]]:
        """Yield the archive of the image, and the key to `note`.

        Raises `ShedError`; when a script or the Dockerfile fails, `ToolError`.
        """
        with contextlib.ExitStack() as stack:
            lease = stack.enter_context(self.store.lease())
            layout, identity = self._base(builder, name, show, lease, stack)
            key = image_key(self.project, self.features, identity, self.made_with)
            file = write_context(self.folder, self.project, self.features, layout.settings)
            request = BuildRequest(self.folder, file, name, epoch=_epoch(), layouts=(layout,), foreign=True)
            doing = "installing the features" if self.features else "making the image"
            self.progress.phase("build", f"{doing} with {builder.name}")
            yield stack.enter_context(built(builder, request, self.store, show)), key

    def note(self, key: Digest, manifest: Digest) -> None:
        """Have the image with that manifest, which was minted of what `build` has yielded, found from now on."""
        note_image(self.store, key, manifest)

    def _base(
        self, builder: Builder, name: str, show: Show | None, lease: Lease, stack: contextlib.ExitStack
    ) -> tuple[Layout, str]:
        """Return the layout of what the features are installed on, and what decides that."""
        base, identity = self.project.base, ""
        folder = stack.enter_context(staging_folder(self.store.scratch().absolute()))
        if isinstance(base, DockerBuild):
            base = self._copy(base, stack.enter_context(staging_folder(self.store.scratch().absolute())))
            identity = build_identity(base, self.store)
            args = tuple(f"{key}={value}" for key, value in base.args.items())
            request = BuildRequest(
                base.context, base.file, f"{name}-base", base.target, None, args, _epoch(), foreign=True
            )
            bases = find_bases(base.file, base.args, self.store)
            self.progress.phase("base", f"building {base.file.name} with {builder.name}")
            archive = stack.enter_context(built(builder, request, self.store, show, bases=bases))
        elif (digest := stored(base, self.store)) is not None:
            layout = lay_out(Base(BASE, (BASE,), digest), folder, self.store, lease)
            return layout, digest
        else:
            transport = "containers-storage" if base.startswith("localhost/") else "docker"
            source = SourceRef(transport, base)
            opened = open_source(source, store=self.store, platform=None, progress=self.progress)
            archive = stack.enter_context(opened)
        layout = lay_out_archive(BASE, archive, folder, self.store, lease)
        return layout, identity or layout.base.digest

    def _copy(self, build: DockerBuild, folder: Path) -> DockerBuild:
        """Copy what the builder may read into `folder`, so that nobody changes it, or leads the builder elsewhere."""
        project, context = self.project.folder, folder / "context"
        text = dockerfile(project, build.file)
        if takes_context(text):
            copy_context(project, build.context, context, self.store.reserve)
        else:
            context.mkdir()
        file = folder / "file" / build.file.name
        file.parent.mkdir()
        file.write_text(text)
        ignored = build.file.with_name(f"{build.file.name}.dockerignore")
        if ignored.is_file():
            file.with_name(ignored.name).write_bytes(read_below(project, ignored, _MOST_IGNORED))
        return replace(build, file=file, context=context)


def _epoch() -> str | None:
    return os.environ.get("SOURCE_DATE_EPOCH")


@contextlib.contextmanager
def prepare(
    project: Project, store: LayoutStore, kit: Kit, writer: RootWriter, *, lock: bool = False, progress: Progress
) -> Iterator[Prepared]:
    """Yield the project with its features; they are on the store's disk until the block ends.

    With `lock`, the lock file of the project is written.  Raises `ShedError` for what is wrong with the project, and
    for what a registry does not give.
    """
    path = lock_path(project.file)
    with staging_folder(store.scratch().absolute()) as folder:
        locked = read_lock(project.folder, path)
        progress.phase("features", "looking up what the project is made of")
        features = Resolver(project, folder, store, locked, progress).run()
        if lock:
            write_lock(path, features)
        if isinstance(project.base, DockerBuild):
            identity = build_identity(project.base, store)
        else:
            identity = "" if project.base.startswith("localhost/") else base_identity(project.base, store)
        made_with = (kit.kernel, kit.initrd, kit.runtime, writer.name, _epoch() or "")
        found = find_image(store, image_key(project, features, identity, made_with)) if identity else None
        notes = (*project.notes, *(note for feature in features for note in feature.notes()))
        yield Prepared(project, features, found, notes, folder, made_with, store, progress)
