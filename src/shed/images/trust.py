"""Which kernels and initrds may boot on this host: those that it knows, whatever an image brings.

A pulled image names its own kernel and initrd, and a name of a registry may mean another image tomorrow.  So what an
image boots with must be known, by digest: a kit that was built here or that images were built with, what came with an
image that the server's configuration names or for which somebody said ``--trust-kernel`` or ``shed image trust``, and
the digests under ``trusted_kernels`` in the configuration.

``{images}/trusted.json`` holds them: ``{"digests": {"sha256:…": "why"}}``; ``.trusted.lock`` is held while it is
changed.  A store without the file is one of before there was any: what its images boot with is known from then on.
Whatever brings an image in calls `prepare` first, so that nothing new is taken for old.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable

from shed.errors import ConflictError, DataError, ShedError
from shed.fsutil import atomic_write, locked
from shed.images.annotations import BootAnnotations
from shed.images.bootkit.kit import Kit, read_kit
from shed.images.references import find_image
from shed.oci.digest import Digest, is_digest
from shed.oci.fields import Fields, decode_object
from shed.oci.store import LayoutStore

FILE = "trusted.json"
BUILT_HERE = "a boot kit of this host"
_BEFORE = "an image of before kernels were checked"


def prepare(store: LayoutStore) -> dict[Digest, str]:
    """Return what is known and why; of a store of before, make the file, with what its images boot with.

    Raises `DataError`.
    """
    try:
        data = (store.root / FILE).read_bytes()
    except FileNotFoundError:
        return _change(store, (), "")
    what = f"{store.root / FILE}"
    try:
        texts = Fields(decode_object(data, what), what).texts("digests")
    except DataError as error:
        hint = "put it back from a backup, or move it away: then every image that is here now is trusted"
        raise DataError(error.message, hint=hint) from None
    return {Digest(digest): why for digest, why in texts.items() if is_digest(digest)}


def add(store: LayoutStore, digests: Iterable[Digest], why: str) -> None:
    """Know these kernels and initrds from now on."""
    wanted = set(digests)
    if not wanted <= prepare(store).keys():
        _change(store, wanted, why)


def add_kit(store: LayoutStore, kit: Kit) -> None:
    """Know the kernel and the initrd of a kit that images are built with here."""
    add(store, (kit.kernel, kit.initrd), BUILT_HERE)


def add_image(store: LayoutStore, reference: str, why: str) -> list[Digest]:
    """Know what the image `reference` boots with; return the digests.  Raises `NotFoundError` and `DataError`."""
    digests = _of(BootAnnotations.parse(store.read_manifest(find_image(store, reference).digest).annotations))
    add(store, digests, why)
    return digests


def unknown(store: LayoutStore, reference: str, configured: Collection[str]) -> list[Digest]:
    """Return what the image boots with and this host does not know.

    Nothing for an image that cannot be booted anyway.
    """
    try:
        digests = _of(BootAnnotations.parse(store.read_manifest(find_image(store, reference).digest).annotations))
    except ShedError:
        return []
    return [digest for digest in digests if digest not in configured and digest not in prepare(store)]


def check(store: LayoutStore, name: str, annotations: BootAnnotations, configured: Collection[str]) -> None:
    """Raise `ConflictError` (KERNEL_NOT_TRUSTED) unless kernel and initrd of the image `name` are trusted.

    They are when the store knows them, or when they are `configured`.
    """
    known = prepare(store)
    for what, digest in (("kernel", annotations.kernel), ("initrd", annotations.initrd)):
        if digest is not None and digest not in known and digest not in configured:
            raise ConflictError(
                f"image {name} brings the {what} {digest}, which this host does not know",
                code="KERNEL_NOT_TRUSTED",
                hint=f"if you trust who made the image: shed image trust {name}; or list the digest under "
                "trusted_kernels in server.yaml",
            )


def _of(annotations: BootAnnotations) -> list[Digest]:
    return [digest for digest in (annotations.kernel, annotations.initrd) if digest is not None]


def _change(store: LayoutStore, digests: Collection[Digest], why: str) -> dict[Digest, str]:
    """Add `digests` to the file, which is made if need be; return all that is known then."""
    store.scratch()  # which makes a store that is not there yet
    with locked(store.root / ".trusted.lock"):
        known = prepare(store) if (store.root / FILE).exists() else dict.fromkeys(_all(store), _BEFORE)
        known |= {digest: why for digest in digests if digest not in known}
        atomic_write(store.root / FILE, json.dumps({"digests": known}, indent=2, sort_keys=True) + "\n")
    return known


def _all(store: LayoutStore) -> list[Digest]:
    """Return what all images boot with, those too that only a shed needs, and the kit."""
    found: list[Digest] = []
    try:
        kit = read_kit(store)
        found += [kit.kernel, kit.initrd] if kit else []
    except DataError:  # it is told when it is used
        pass
    for _, manifest in store.manifests():
        with contextlib.suppress(DataError):  # it cannot be booted
            found += _of(BootAnnotations.parse(manifest.annotations))
    return found
