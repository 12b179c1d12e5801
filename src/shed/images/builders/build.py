"""One build: from a context folder to an archive that can be minted, and that is gone, or kept, when that is done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from shed.errors import NotFoundError, UsageError
from shed.fsutil import fsync_dir, storage_errors
from shed.images.builders.base import Builder, BuildRequest, Show
from shed.images.builders.bases import Base, lay_out
from shed.oci.archive import open_archive
from shed.oci.content import Archive
from shed.oci.docker_archive import DockerArchive
from shed.oci.pack import repack_archive
from shed.oci.staging import staging_folder, sweep
from shed.oci.store import LayoutStore
from shed.run import ToolError

DEFAULT_FILES = ("Dockerfile.shed", "Dockerfile", "Containerfile")
"""Looked for in the context, in this order."""


def find_file(context: Path, file: str | None = None) -> Path:
    """Return the Containerfile to use: `file`, or the first of `DEFAULT_FILES` that is in the folder `context`.

    Raises `UsageError` when `context` is no folder and `NotFoundError` when the file is not there.
    """
    if not context.is_dir():
        raise UsageError(f"the context {context} is not a folder", hint="name the folder that the image is built from")
    if file is not None:
        path = Path(file)
        if path.is_file():
            return path
        there = f"; in the context there is one: --file {context / path}" if (context / path).is_file() else ""
        raise NotFoundError(f"{path} is not a file", code="CONTAINERFILE_NOT_FOUND", hint=f"check the path{there}")
    for name in DEFAULT_FILES:
        if (context / name).is_file():
            return context / name
    raise NotFoundError(
        f"{context} has none of {', '.join(DEFAULT_FILES)}",
        code="CONTAINERFILE_NOT_FOUND",
        hint="write one, or name yours with --file",
    )


@contextlib.contextmanager
def built(
    builder: Builder,
    request: BuildRequest,
    store: LayoutStore,
    show: Show | None,
    *,
    bases: Sequence[Base] = (),
    keep_in: Path | None = None,
) -> Iterator[Archive]:
    """Yield the archive that `builder` makes; it is on the store's disk and removed with the block.

    `bases` are the images of `store` that it builds on; the request may have layouts of others in their place.

    With `keep_in` an OCI archive stays in that folder, as ``NAME.oci.tar``.  Raises `ShedError`.
    """
    parent = (keep_in or store.scratch()).absolute()  # the tool may work in a folder of its own
    with storage_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    with staging_folder(parent) as folder:
        output = folder / "image.oci.tar"
        try:
            with store.lease() as lease:
                layouts = request.layouts or tuple(lay_out(base, folder, store, lease) for base in bases)
                builder.build(replace(request, layouts=layouts), output, show)
        except ToolError as error:
            error.hint = f"what {builder.name} printed says why"
            raise
        with open_archive(output, scratch=store.scratch(), reserve=store.reserve) as archive:
            archive.name = f"the image that {builder.name} built"
            if keep_in is not None:
                _keep(archive, output, keep_in / f"{request.name}.oci.tar")
            yield archive


def _keep(archive: Archive, output: Path, target: Path) -> None:
    if isinstance(archive, DockerArchive):
        repack_archive(archive, target)
        return
    with storage_errors(target):
        with output.open("rb") as file:
            os.fsync(file.fileno())
        output.rename(target)
        fsync_dir(target.parent)
