"""Pulling an image: what it boots from, and its layers only when they are asked for.

The blobs come first, under a lease, so that a pull that is killed has not fetched in vain (`shed.images.fetch`); the
root file system is checked before it gets its name.  When all of them are here the manifest is stored byte for byte,
and the tag and the record of the reference go last.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial

from shed.errors import DataError
from shed.images import references, trust
from shed.images.annotations import BootAnnotations, blobs_of, boot_blobs
from shed.images.fetch import Fetch
from shed.images.remote import find_remote, told_plainly
from shed.images.transfer import AT_ONCE
from shed.images.verify import check_file_system
from shed.names import check_image_name
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, short
from shed.oci.partial import PartialBlob
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import Reference, parse_reference
from shed.oci.selection import SelectedImage
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop


@dataclass(frozen=True, slots=True)
class PullResult:
    """What was pulled."""

    tag: str
    """Empty when its name is another image's."""
    digest: Digest
    """Of the image manifest."""
    fetched: int
    exists: int
    """Blobs that were here."""
    fetched_bytes: int
    timings: dict[str, float]
    """Milliseconds by phase."""


def pull_image(
    store: LayoutStore,
    reference: str,
    *,
    tag: str | None = None,
    platform: Platform | None = None,
    take_tag: bool = True,
    with_layers: bool = False,
    insecure: bool = False,
    trust_kernel: bool = False,
    concurrency: int = AT_ONCE,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> PullResult:
    """Pull the image `reference` and call it `tag`, or by the last part of its path.

    At most `concurrency` blobs are fetched at a time.

    Unless `take_tag`, a name that means another image goes on to do so; the image is then known by its reference alone.

    With `trust_kernel`, what the image boots with may boot here from then on, see `shed.images.trust`. `with_layers`
    fetches the layers as well, also those of an image that is here without them.  The store then knows the image by
    `reference`, too.  Raises `NotFoundError`, `RegistryError` and `UnavailableError`, and `DataError` for an image that
    is damaged or cannot be booted; then no name means anything else than before, and the sound blobs that came stay for
    another try, or for a prune.
    """
    remote = parse_reference(reference)
    name = check_image_name(tag or remote.image_name())
    progress = progress or Progress()
    stop = stop or Stop()
    trust.prepare(store)
    store.sweep()
    store.index()  # a damaged one is told now, not when all the work is done
    progress.phase("manifest", f"looking up {remote}")
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(store.lease())  # which makes a store that is not there yet
        stack.enter_context(references.pulling(store, reference, stop))
        repository = stack.enter_context(
            Repository(remote, insecure=insecure, private_hosts=store.limits.private_hosts, sleep=stop.sleep)
        )
        stop.add_callback(repository.abort)
        chosen = find_remote(repository, platform)
        boot = _boot(chosen, remote, with_layers=with_layers)
        wanted = _wanted(chosen, boot, with_layers=with_layers)
        lease.blobs(*blobs_of(chosen.digest, chosen.manifest))
        fetch = Fetch(store, repository, wanted, _labels(chosen, boot), progress=progress, stop=stop)
        progress.phase("blobs", f"pulling {remote}")
        checks = {} if boot.root is None else {boot.root: partial(_check_root, digest=boot.root, reference=remote)}
        fetch.run(concurrency=concurrency, checks=checks)
        progress.phase("commit", f"storing {name}")
        name = _publish(store, chosen, name, take_tag=take_tag)
        references.record(store, reference, chosen.digest)
        if trust_kernel:
            trust.add_image(store, chosen.digest, f"--trust-kernel, with {remote}")
    return PullResult(
        tag=name,
        digest=chosen.digest,
        fetched=len(fetch.fetched),
        exists=fetch.existed,
        fetched_bytes=fetch.fetched_bytes,
        timings=progress.finish(),
    )


def _publish(store: LayoutStore, chosen: SelectedImage, name: str, *, take_tag: bool) -> str:
    """Store the documents and name the image; return the name, empty when another image keeps it."""
    store.put_bytes(chosen.config_bytes)
    store.put_bytes(chosen.manifest_bytes)
    manifest = Descriptor(media.MANIFEST, chosen.digest, len(chosen.manifest_bytes), platform=chosen.config.platform)
    if not take_tag and (tag := store.tag(name)) and tag.digest != manifest.digest:
        store.keep(manifest)
        return ""
    store.publish(manifest, name)
    return name


@told_plainly()
def _boot(chosen: SelectedImage, reference: Reference, *, with_layers: bool) -> BootAnnotations:
    """Return what the image boots from.

    Raises `DataError` (NOT_BOOTABLE) for an image without a root, unless its layers are wanted.
    """
    annotations = BootAnnotations.parse(chosen.manifest.annotations)
    if annotations.root is None and not with_layers:
        try:
            boot_blobs(chosen.digest, annotations)
        except DataError as error:
            error.hint = (
                "this was a boot-only pull; an ordinary image, to build one from, is pulled with its layers: "
                f"shed image pull {reference} --with-layers"
            )
            raise
    return annotations


def _wanted(chosen: SelectedImage, boot: BootAnnotations, *, with_layers: bool) -> dict[Digest, int | None]:
    """Return the blobs to have, the likely largest first; their sizes are None where the manifest does not say them."""
    blobs = {digest: boot.sizes.get(digest) for digest in reversed(boot.blobs().values())}
    layers = chosen.manifest.layers if with_layers else ()
    return blobs | {layer.digest: layer.size for layer in sorted(layers, key=lambda layer: -layer.size)}


def _labels(chosen: SelectedImage, boot: BootAnnotations) -> dict[Digest, str]:
    """Return what people call the blobs of the image."""
    layers = {layer.digest: f"layer {number}" for number, layer in enumerate(chosen.manifest.layers, 1)}
    return layers | {digest: what.removesuffix(" erofs") for what, digest in boot.blobs().items()}


def _check_root(blob: PartialBlob, digest: Digest, reference: Reference) -> None:
    """Check the root file system before it gets its name.  Raises `DataError`."""
    check_file_system(blob.path, f"the root file system {short(digest)} of {reference}")
