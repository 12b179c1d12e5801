"""Checks of what is stored: the boot kit, every image, every shed, and what earlier versions left."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from shed.checks import Result, Status
from shed.config.server import find_settings, load_settings
from shed.erofs.checker import check
from shed.errors import DataError, NotFoundError, ShedError
from shed.images import trust
from shed.images.bootkit.kit import load_kit
from shed.images.references import all_tags
from shed.images.resolve import resolve_image
from shed.oci.digest import Digest, hex_of
from shed.oci.store import LayoutStore
from shed.server.doctor.host import Host
from shed.sheds import folders, metadata
from shed.sheds.folders import Folders
from shed.sheds.upper import has_errors, repair


def boot_kit(host: Host) -> Iterator[Result]:
    """What new images boot with is here and undamaged."""
    store = host.store
    if not (store.root / "kit.json").exists():
        detail = "there is none: images that are pulled bring theirs, images that are built need it"
        yield Result("boot kit", Status.WARN, detail, "shed image bootkit build")
        return
    kit = load_kit(store)
    for digest in (kit.kernel, kit.initrd, kit.runtime):
        store.verify(digest, again=True)
    check(store.blob_path(kit.runtime))
    yield Result(
        "boot kit", Status.PASS, f"kernel {kit.record['kernel_release']}, initrd and runtime are what they were"
    )


def images(host: Host) -> Iterator[Result]:
    """Every image names its root, all it boots from is here and undamaged, and a kernel can read its file systems."""
    store = host.store
    names: dict[Digest, str] = {}
    for name in store.tag_names():
        try:
            tag = store.tag(name)
        except ShedError as error:
            yield Result.of(f"image {name}", error)
        else:
            if tag is not None:
                names.setdefault(tag.digest, name)
    try:
        untagged = {entry.digest for entry in store.index().manifests} - {digest for _, digest in all_tags(store)}
    except DataError as error:
        yield Result.of("images", error)
        untagged = set()
    names |= {digest: hex_of(digest)[:12] for digest in sorted(untagged)}
    if not names:
        yield Result("images", Status.WARN, "there are none yet", "shed-server pull-images, or shed image build")
    sound: set[Path] = set()
    for digest, name in names.items():
        yield _image(store, digest, f"image {name}", sound)


def _image(store: LayoutStore, digest: Digest, name: str, sound: set[Path]) -> Result:
    """Look at an image; file systems that are `sound`, which several share, are not looked at again."""
    try:
        image = resolve_image(store, digest, verify=True, trusted=None)
        for path in {image.root, image.runtime} - sound:
            check(path)
            sound.add(path)
    except Exception as error:  # noqa: BLE001  one that is damaged must not hide the others
        return Result.of(name, error)
    return Result(name, Status.PASS, f"{digest[:19]}: all blobs are what they were, and the root is sound")


def kernels(host: Host) -> Iterator[Result]:
    """Every image boots with a kernel that this host knows."""
    store = host.store
    if not (store.root / trust.FILE).exists():
        yield Result(
            "kernels",
            Status.PASS,
            "nothing is noted yet: what the images that are here boot with is known from the next start on",
        )
        return
    configured = load_settings(host.config or find_settings()).trusted_kernels
    for name, digest in all_tags(store):
        if unknown := trust.unknown(store, digest, configured):
            detail = (
                "it brings a kernel or an initrd that this host does not know, so no shed is made of it: "
                f"{', '.join(unknown)}"
            )
            yield Result(f"image {name}", Status.WARN, detail, f"if you trust who made it: shed image trust {name}")
    yield Result(
        "kernels", Status.PASS, f"{len(trust.prepare(store)) + len(configured)} kernels and initrds are known here"
    )


def sheds(host: Host) -> Iterator[Result]:
    """Every shed's record can be read, its writable layer is there, and the image it was made from is too."""
    found = folders.names(host.paths)
    for name in found:
        places = Folders(host.paths, name)
        if (places.instance / metadata.MARKER).exists():
            continue  # a create under way, or one that the next server undoes
        try:
            record = metadata.load(places.instance)
            if not places.upper.exists():
                raise NotFoundError(f"its writable layer {places.upper} is gone", hint=f"shed delete --force {name}")
            if has_errors(places.upper):
                hint = f"shed stop {name}, then: {repair(places.upper)}"
                yield Result(f"shed {name}", Status.WARN, "its file system has errors, as after a full disk", hint)
            resolve_image(host.store, record.lower_digest, trusted=None)
        except Exception as error:  # noqa: BLE001  as above
            yield Result.of(f"shed {name}", error)
    yield Result("sheds", Status.PASS, f"{len(found)} looked at")


def templates(host: Host) -> Iterable[Result]:
    """What VMs are restored from is what was saved, and can still be used."""
    return host.diagnostics.templates()


def leftovers(host: Host) -> Iterator[Result]:
    """Nothing is left of versions that kept images otherwise."""
    store = host.store
    cache = store.root / "cache"
    if cache.is_dir():
        hint = f"remove it: rm -rf {shlex.quote(str(cache))}"
        yield Result("legacy cache", Status.WARN, f"{cache} is left of v0.5.1, and nothing uses it", hint)
    else:
        yield Result("legacy cache", Status.PASS, "nothing is left of v0.5.1")
    blobs = store.blobs.iterdir() if store.blobs.is_dir() else ()
    folders_of_v04 = sorted(path for path in blobs if path.is_dir())
    if folders_of_v04:
        hint = f"remove them: find {shlex.quote(str(store.blobs))} -mindepth 1 -maxdepth 1 -type d -exec rm -rf {{}} +"
        detail = f"{len(folders_of_v04)} blobs are folders, as v0.4 kept them, the first {folders_of_v04[0].name[:12]}"
        yield Result("legacy blobs", Status.FAIL, detail, hint)
    else:
        yield Result("legacy blobs", Status.PASS, "nothing is left of v0.4")
