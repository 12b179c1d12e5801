"""Images that exist already, wherever they are: what `shed image build --from REF` takes.

::

    docker://REF               a registry
    containers-storage:REF     the storage of podman and buildah
    docker-daemon:REF          the image store of the docker engine
    oci:FOLDER[:TAG]           a layout folder
    oci-archive:FILE[:TAG]     an OCI archive
    docker-archive:FILE[:REF]  what `docker save` writes
    REF                        the first of these that has it: containers-storage, docker-daemon, and then its registry

These are the transports of containers/image:
https://github.com/containers/image/blob/main/docs/containers-transports.5.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shed.budget import Budget
from shed.errors import NotFoundError, ShedError, UnavailableError, UsageError
from shed.images.builders.base import Builder
from shed.images.builders.tools import Buildah, Docker, Podman
from shed.images.remote import open_remote
from shed.oci.archive import blaming, open_archive, read_index
from shed.oci.content import Archive, FileSlice
from shed.oci.decompression import Spool
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.manifest import CONTAINERD_NAME, REF_NAME, Index
from shed.oci.staging import staging_folder
from shed.oci.store import LayoutStore
from shed.progress import Progress
from shed.text import visible

_REGISTRY = "docker"
_ARCHIVES = ("oci", "oci-archive", "docker-archive")
_STORAGES: dict[str, tuple[Builder, ...]] = {"containers-storage": (Podman(), Buildah()), "docker-daemon": (Docker(),)}
"""The tools that can read a store; the first that works is used."""
_NEXT_STEP = {
    "containers-storage": "install the package podman or buildah",
    "docker-daemon": "install docker and start its engine",
}


@dataclass(frozen=True, slots=True)
class SourceRef:
    """An image that exists."""

    transport: str
    """``docker``, a storage, a kind of archive, or empty: wherever the image is found first."""
    name: str
    """The image's reference, or the path of the archive."""
    tag: str = ""
    """Which image of the archive."""

    @property
    def source_ref(self) -> str:
        """What the image is built for when nobody says otherwise: its name in a registry."""
        return self.name if self.transport in ("", _REGISTRY) else ""


def parse_source(text: str) -> SourceRef:
    """Return where the image `text` is.  Raises `UsageError`."""
    transport, _, rest = text.partition(":")
    if transport == _REGISTRY and rest.startswith("//"):
        found = SourceRef(transport, rest[2:])
    elif transport in _STORAGES:
        found = SourceRef(transport, rest)
    elif transport in _ARCHIVES:
        path, _, tag = (rest, "", "") if Path(rest).exists() else rest.partition(":")
        found = SourceRef(transport, path, tag)
    else:
        found = SourceRef("", text)
    if not found.transport and text[0:1] in "./":
        raise UsageError(f"{text!r} is a path, not an image", hint=f"when it is an archive, write oci-archive:{text}")
    if not found.name or found.name.startswith("-"):
        raise UsageError(
            f"{text!r} names no image", hint="for example docker.io/library/debian:13, or oci-archive:FILE"
        )
    return found


@contextlib.contextmanager
def open_source(
    source: SourceRef, *, store: LayoutStore, platform: Platform | None, insecure: bool = False, progress: Progress
) -> Iterator[Archive]:
    """Yield the image `source` as an archive.

    What has to be copied is on the store's disk until the block ends; of a registry's image, see `RemoteImage`.

    Raises `NotFoundError` when it is not there, `UnavailableError` when the tool that has it does not work, and as
    `open_archive` and `open_remote` do.
    """
    with contextlib.ExitStack() as stack:
        if source.transport in _ARCHIVES:
            yield _open_file(source, store, progress, stack)
            return
        tool = _tool(source)
        if tool is None:
            remote = open_remote(source.name, platform=platform, store=store, insecure=insecure, progress=progress)
            with _looked_around(source):
                image = stack.enter_context(remote)
            yield image
            return
        progress.phase("export", f"getting {source.name} from {tool.name}")
        output = stack.enter_context(staging_folder(store.scratch().absolute())) / "image.oci.tar"
        tool.export(source.name, output, None)
        archive = stack.enter_context(open_archive(output, scratch=store.scratch(), reserve=store.reserve))
        archive.name = f"{source.name} of {tool.name}"
        yield archive


@contextlib.contextmanager
def _looked_around(source: SourceRef) -> Iterator[None]:
    """Say, when the registry does not have it either, that the image is in no local store."""
    try:
        yield
    except ShedError as error:
        if not source.transport:
            error.message = f"{source.name} is in no container store of this machine, and {error.message}"
        raise


def _tool(source: SourceRef) -> Builder | None:
    """Return the tool that has the image in its store; None when its registry is to be asked."""
    if source.transport == _REGISTRY:
        return None
    if source.transport:
        tool = _working(source.transport)
        if not tool.has(source.name):
            raise NotFoundError(
                f"{tool.name} has no image {source.name!r}", code="IMAGE_NOT_FOUND", hint=f"see: {tool.name} images"
            )
        return tool
    for storage in _STORAGES:
        with contextlib.suppress(UnavailableError):
            tool = _working(storage)
            if tool.has(source.name):
                return tool
    return None


def _working(storage: str) -> Builder:
    """Return the first tool that works.  Raises `UnavailableError` (STORAGE_UNREADABLE) with every reason."""
    reasons = []
    for tool in _STORAGES[storage]:
        reason = tool.probe()
        if reason is None:
            return tool
        reasons.append(f"{tool.name}: {reason}")
    message = f"cannot read {storage}: {'; '.join(reasons)}"
    raise UnavailableError(message, code="STORAGE_UNREADABLE", hint=_NEXT_STEP[storage])


def _open_file(source: SourceRef, store: LayoutStore, progress: Progress, stack: contextlib.ExitStack) -> Archive:
    progress.phase("ingest", f"reading {source.name}")
    with blaming(source.name):
        archive = stack.enter_context(open_archive(source.name, scratch=store.scratch(), reserve=store.reserve))
        return _Tagged(archive, source.tag, store.scratch(), stack) if source.tag else archive


class _Tagged:
    """The images of an archive that have one tag."""

    def __init__(self, archive: Archive, tag: str, scratch: Path, stack: contextlib.ExitStack) -> None:
        self.name = archive.name
        self._archive = archive
        entries = read_index(archive).manifests
        chosen = tuple(entry for entry in entries if any(_means(tag, name) for name in _names(entry)))
        if not chosen:
            there = ", ".join(sorted({visible(name) for entry in entries for name in _names(entry)})) or "no names"
            raise NotFoundError(
                f"{self.name} has no image {tag!r}, only {there}", code="IMAGE_NOT_FOUND", hint="choose one of them"
            )
        data = Index(chosen).encode()
        spool = stack.enter_context(Spool(scratch, Budget(len(data))))
        spool.write(data)
        self._index = spool.finish()

    def file(self, path: str) -> FileSlice | None:
        return self._index if path == "index.json" else self._archive.file(path)


def _names(entry: Descriptor) -> list[str]:
    return [entry.annotations[key] for key in (REF_NAME, CONTAINERD_NAME) if key in entry.annotations]


def _means(tag: str, name: str) -> bool:
    return name == tag or name.endswith(f"/{tag}")
