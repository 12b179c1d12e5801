"""From the name of an image to the files that a virtual machine boots from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shed.errors import DataError, NotFoundError
from shed.images import trust
from shed.images.annotations import BootAnnotations, boot_blobs
from shed.images.references import Found, find_image
from shed.oci.digest import Digest, short
from shed.oci.store import LayoutStore
from shed.text import visible


@dataclass(frozen=True, slots=True)
class BootImage:
    """All that a host needs to boot an image; the paths are blobs of the store and never change."""

    digest: Digest
    """Of the manifest: what a shed is pinned to."""
    name: str
    """The tag it was found by; empty when it has none."""
    kernel: Path
    initrd: Path
    root: Path
    """EROFS."""
    runtime: Path
    """EROFS."""
    config: dict[str, Any]
    """How the image wants to be run: the ``config`` object of the OCI config (User, Env, WorkingDir, …)."""


def resolve_image(
    store: LayoutStore, reference: str, *, verify: bool = False, trusted: Collection[str] | None = ()
) -> BootImage:
    """Return what `reference` (a tag, a digest, 12 or more of its hex digits) boots from.

    Every blob is compared with its digest unless it is known to be unchanged since that was last done; `verify` reads
    them all again. Kernel and initrd must be known here, see `shed.images.trust`, or among `trusted`; None: any will
    do, for who boots nothing. Raises `NotFoundError` (IMAGE_NOT_FOUND, BLOB_NOT_FOUND), `DataError` (NOT_BOOTABLE,
    DIGEST_MISMATCH) and `ConflictError` (KERNEL_NOT_TRUSTED).
    """
    found = find_image(store, reference)
    manifest = store.read_manifest(found.digest)
    annotations = BootAnnotations.parse(manifest.annotations)
    boot = boot_blobs(found.digest, annotations)
    if trusted is not None:
        trust.check(store, found.name or short(found.digest).removeprefix("sha256:"), annotations, trusted)
    paths = {what: _blob(store, digest, what, found, annotations, verify=verify) for what, digest in boot.items()}
    return BootImage(
        digest=found.digest,
        name=found.name,
        kernel=paths["kernel"],
        initrd=paths["initrd"],
        root=paths["rootfs erofs"],
        runtime=paths["runtime erofs"],
        config=store.read_config(manifest).settings,
    )


def _blob(
    store: LayoutStore, digest: Digest, what: str, found: Found, annotations: BootAnnotations, *, verify: bool
) -> Path:
    recover = f"shed image pull {visible(annotations.source_ref) or '<ref>'} -t {found.name or '<name>'}"
    try:
        store.verify(digest, again=verify)
    except NotFoundError:
        raise NotFoundError(
            f"{what} blob {short(digest)} referenced by manifest {short(found.digest)} is missing from the local "
            "store; "
            f"re-pull the image ({recover}) to recover",
            code="BLOB_NOT_FOUND",
        ) from None
    except DataError as error:
        message = f"{what} blob of image manifest {short(found.digest)} is damaged: {error.message}"
        again = (
            "build the image again"
            if digest == annotations.root
            else "build the boot kit again (shed image bootkit build)"
        )
        raise DataError(message, code=error.code, hint=f"{again}, or re-pull the image: {recover}") from None
    return store.blob_path(digest)
