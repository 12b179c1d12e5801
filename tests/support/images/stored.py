"""Images put into a store blob by blob, as a pull or a load does; and records of sheds and snapshots that need them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from shed.config.paths import Paths
from shed.images.annotations import BootAnnotations
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, digest_bytes
from shed.oci.leases import Lease
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore
from shed.sheds import metadata
from support.images.runtimes import small_runtime


def image_parts(
    content: str, *, layers: int = 1, root: bool = True, shared: str = "kit"
) -> tuple[Manifest, list[bytes]]:
    """Return the manifest and the blobs of an image that is unlike others of other `content`; those of the kit are
    `shared`.
    """
    config = (
        b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},"x":"%s"}' % content.encode()
    )
    tars = [f"layer {number} of {content}".encode() for number in range(layers)]
    kernel, initrd, runtime = f"kernel of {shared}".encode(), f"initrd of {shared}".encode(), small_runtime(shared)
    erofs = f"root of {content}".encode()
    annotations = BootAnnotations(
        variant=content,
        source_ref=f"example.org/{content}:v1",
        kernel=digest_bytes(kernel),
        initrd=digest_bytes(initrd),
        runtime=digest_bytes(runtime),
        root=digest_bytes(erofs) if root else None,
    )
    manifest = Manifest(
        Descriptor(media.CONFIG, digest_bytes(config), len(config)),
        tuple(Descriptor(media.LAYER, digest_bytes(data), len(data)) for data in tars),
        annotations.encode(),
    )
    return manifest, [config, *tars, kernel, initrd, runtime, *([erofs] if root else [])]


def put_image(
    store: LayoutStore,
    content: str,
    name: str | None = None,
    *,
    layers: int = 1,
    root: bool = True,
    shared: str = "kit",
    held: Lease | None = None,
) -> Digest:
    """Store the image `content`, tagged when it gets a `name`, and return its digest; `held` is the lease to do it
    under.
    """
    manifest, blobs = image_parts(content, layers=layers, root=root, shared=shared)
    data = manifest.encode()
    digest = digest_bytes(data)
    with contextlib.nullcontext(held) if held else store.lease() as lease:
        lease.image(digest)
        lease.blobs(*map(digest_bytes, blobs))
        for blob in blobs:
            store.put_bytes(blob)
        store.put_bytes(data)
        store.publish(
            Descriptor(media.MANIFEST, digest, len(data), platform=Platform("linux", "amd64")), name or "to-be-removed"
        )
        if name is None:
            store.untag("to-be-removed")
    return digest


def put_shed(paths: Paths, name: str, digest: str) -> Path:
    """Record a stopped shed that was made from the image `digest`; return its folder."""
    folder = paths.instances / name
    folder.mkdir(parents=True)
    record = metadata.Record(name, metadata.now(), "base", digest, "fake", 1, 512, 1 << 30, wanted="stopped")
    metadata.save(folder, record)
    return folder


def put_snapshot(paths: Paths, name: str, digest: str) -> Path:
    """Record a snapshot of a shed that was made from the image `digest`; return its folder."""
    folder = paths.snapshots / name
    folder.mkdir(parents=True)
    (folder / "snapshot.json").write_text(json.dumps({"version": 2, "name": name, "lower_digest": digest}))
    return folder
