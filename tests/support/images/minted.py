"""Small images for tests that need one in a store but do not boot it."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.writer import write_image
from shed.images.annotations import SIZE_KEYS
from shed.images.bootkit.kit import Kit
from shed.images.mint import MintResult, mint_archive
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest
from shed.oci.store import LayoutStore
from support.erofs.images import Damaged, make_image, sample_entries
from support.layers.tars import Image, file, folder, tar

LAYER = tar(folder("etc"), file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), file("bin/sh", b"#!" * 5000, mode=0o755))


def small_kit(store: LayoutStore, *, algorithms: tuple[str, ...] = ("lz4",), runtime: Digest | None = None) -> Kit:
    """Return a kit of three blobs that boot nothing."""
    return Kit(
        kernel=store.put_bytes(b"kernel"),
        initrd=store.put_bytes(b"initrd"),
        runtime=runtime or store.put_bytes(b"runtime"),
        record={"erofs_algorithms": list(algorithms), "kernel_release": "6.12.0-test", "architecture": "amd64"},
    )


def sound_kit(store: LayoutStore) -> Kit:
    """Return a kit that boots nothing either, but whose runtime is a file system that can be checked."""
    with store.stage() as blob:
        write_image([Entry(b"agent", stat.S_IFREG | 0o755)], blob.file)
        return small_kit(store, runtime=blob.commit())


def mint_sound(store: LayoutStore, folder: Path, name: str = "base", layer: bytes = LAYER) -> MintResult:
    """Mint an image of one layer with nothing wrong about it; its archive is written to `folder`."""
    return mint_archive(store, Image(layer).archive(folder / f"{name}.oci.tar"), name, kit=sound_kit(store))


def mint_small(store: LayoutStore, folder: Path, name: str = "base", layer: bytes = LAYER) -> MintResult:
    """Mint an image of one layer; its archive is written to `folder`."""
    return mint_archive(store, Image(layer).archive(folder / f"{name}.tar"), name, kit=small_kit(store))


def digest_of(store: LayoutStore, name: str = "base") -> Digest:
    """Return the digest that a name means."""
    tag = store.tag(name)
    assert tag is not None
    return tag.digest


def variant(store: LayoutStore, name: str, annotations: Mapping[str, str]) -> Digest:
    """Publish a copy of base with other annotations, and the sizes of blobs that they name; return its digest."""
    manifest = store.read_manifest(digest_of(store))
    sizes = {SIZE_KEYS[key]: str(store.size(blob)) for key, blob in annotations.items() if key in SIZE_KEYS and blob}
    data = replace(manifest, annotations={**manifest.annotations, **sizes, **annotations}).encode()
    digest = store.put_bytes(data)
    store.publish(Descriptor(media.MANIFEST, digest, len(data)), name)
    return digest


def without_sizes(store: LayoutStore, name: str) -> Digest:
    """Make `name` its image as versions up to 0.5.2 published it: nothing says how large what it boots from is."""
    manifest = store.read_manifest(digest_of(store, name))
    data = replace(
        manifest, annotations={key: text for key, text in manifest.annotations.items() if key not in SIZE_KEYS.values()}
    ).encode()
    digest = store.put_bytes(data)
    store.publish(Descriptor(media.MANIFEST, digest, len(data)), name)
    return digest


def root_of_erofs_utils_1_7_1(folder: Path) -> Path:
    """Return an image with the bug of that version: inodes use big clusters, which the superblock does not declare."""
    damaged = Damaged(make_image(folder / "valid.erofs", sample_entries()), folder / "broken.erofs")
    features = damaged.description().feature_incompat
    assert features & layout.INCOMPAT_BIG_PCLUSTER
    damaged.superblock(feature_incompat=features & ~layout.INCOMPAT_BIG_PCLUSTER, compression=0)
    return damaged.save()
