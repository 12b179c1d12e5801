"""Verifying stored images: what is sound passes, and whatever is wrong is found and named.  And their history."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shed.errors import NotFoundError, UnavailableError, UsageError
from shed.images.annotations import ROOT_KEY
from shed.images.listing import image_history
from shed.images.resolve import resolve_image
from shed.images.tags import tag_image
from shed.images.verify import Check, verify_image
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.fields import encode_object
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore
from shed.progress import Stop
from support.images.minted import digest_of, mint_sound, root_of_erofs_utils_1_7_1, variant
from support.layers.tars import file, tar


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store with an image called base."""
    store = LayoutStore(tmp_path / "images")
    mint_sound(store, tmp_path)
    return store


def by_name(store: LayoutStore, name: str = "base", *, deep: bool = False) -> dict[str, Check]:
    """Verify an image and return its checks."""
    result = verify_image(store, name, deep=deep)
    assert result.valid == all(check.status != "FAIL" for check in result.checks)
    return {check.name: check for check in result.checks}


def states(checks: dict[str, Check], state: str) -> list[str]:
    """Return the checks that came out so."""
    return [name for name, check in checks.items() if check.status == state]


def overwrite(path: Path, data: bytes, offset: int = 0) -> None:
    """Change bytes of a blob."""
    path.chmod(0o644)
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, data, offset)
    os.close(fd)


def test_a_sound_image(store: LayoutStore) -> None:
    """Everything passes, with how much there was of it; deep, the root is compared with the layers too."""
    checks = by_name(store, deep=True)
    assert states(checks, "PASS") == list(checks)
    assert list(checks) == [
        *(
            "manifest",
            "config",
            "annotations",
            "kernel blob",
            "initrd blob",
            "runtime erofs blob",
            "rootfs erofs blob",
            "layer 1",
        ),
        *("runtime erofs inodes", "rootfs erofs inodes", "contents"),
    ]
    assert checks["kernel blob"].counts == {"bytes": 6}
    assert checks["rootfs erofs inodes"].counts["inodes"] == checks["contents"].counts["names"] == 5
    assert checks["contents"].counts["files"] == 2
    assert "contents" not in by_name(store)


@pytest.mark.parametrize("what", ["kernel", "initrd", "runtime", "root"])
def test_a_blob_that_changed(store: LayoutStore, what: str) -> None:
    """Is named with both digests, although its size and the record of the last comparison say that all is well."""
    path: Path = getattr(resolve_image(store, "base"), what)
    before = path.stat()
    overwrite(path, b"XX", before.st_size // 2)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    name = {"runtime": "runtime erofs", "root": "rootfs erofs"}.get(what, what)
    checks = by_name(store, deep=True)
    assert states(checks, "FAIL") == [f"{name} blob"]
    assert "digest mismatch: wanted sha256:" in checks[f"{name} blob"].detail
    if what == "root":
        assert states(checks, "SKIP") == ["contents"]


def test_a_layer_that_changed(store: LayoutStore) -> None:
    """Is found without unpacking it; the root is then compared with nothing."""
    (layer,) = store.read_manifest(digest_of(store)).layers
    overwrite(store.blob_path(layer.digest), b"XX", 20)
    checks = by_name(store, deep=True)
    assert (states(checks, "FAIL"), states(checks, "SKIP")) == (["layer 1"], ["contents"])


def test_a_blob_that_is_gone(store: LayoutStore) -> None:
    """Is a failure, and not the end of the verification."""
    resolve_image(store, "base").initrd.unlink()
    checks = by_name(store)
    assert states(checks, "FAIL") == ["initrd blob"]
    assert "is not in the local store" in checks["initrd blob"].detail
    assert checks["rootfs erofs inodes"].status == "PASS"


def test_documents_that_changed(store: LayoutStore) -> None:
    """Without a manifest there is nothing more to look at; without a config there is."""
    manifest = store.read_manifest(digest_of(store))
    overwrite(store.blob_path(manifest.config.digest), b"[")
    checks = by_name(store, deep=True)
    assert (states(checks, "FAIL"), states(checks, "SKIP")) == (["config"], ["contents"])
    overwrite(store.blob_path(digest_of(store)), b"[")
    assert states(by_name(store), "FAIL") == ["manifest"]
    assert list(by_name(store)) == ["manifest"]


def test_the_root_of_erofs_utils_1_7_1(store: LayoutStore, tmp_path: Path) -> None:
    """Its digest is right, and the inode and the rule are named."""
    variant(store, "broken", {ROOT_KEY: store.put_bytes(root_of_erofs_utils_1_7_1(tmp_path).read_bytes())})
    checks = by_name(store, "broken", deep=True)
    assert (states(checks, "FAIL"), states(checks, "SKIP")) == (["rootfs erofs inodes"], ["contents"])
    assert checks["rootfs erofs inodes"].detail.startswith("inode ")
    assert checks["rootfs erofs inodes"].detail.endswith("[big-pcluster-undeclared]")


def test_a_root_that_is_not_what_the_layers_say(store: LayoutStore, tmp_path: Path) -> None:
    """A sound file system of another image: only a deep verification sees it, and names the path."""
    mint_sound(store, tmp_path, "other", tar(file("etc/passwd", b"root::0:0::/:/bin/sh\n")))
    variant(store, "forged", {ROOT_KEY: store.read_manifest(digest_of(store, "other")).annotations[ROOT_KEY]})
    assert states(by_name(store, "forged"), "FAIL") == []
    checks = by_name(store, "forged", deep=True)
    assert states(checks, "FAIL") == ["contents"]
    assert "/" in checks["contents"].detail
    assert "-differs]" in checks["contents"].detail


def test_an_image_without_its_layers(store: LayoutStore) -> None:
    """Is valid, and what was not compared is said; deep, all of its root is read."""
    (layer,) = store.read_manifest(digest_of(store)).layers
    store.blob_path(layer.digest).unlink()
    checks = by_name(store, deep=True)
    assert (states(checks, "FAIL"), states(checks, "SKIP")) == ([], ["layer 1"])
    assert "the layers are not here" in checks["contents"].detail
    assert checks["contents"].counts["files"] == 2


def test_an_image_that_cannot_be_booted(store: LayoutStore) -> None:
    """The annotation that is missing is named; what is there is verified."""
    variant(store, "old", {ROOT_KEY: ""})
    checks = by_name(store, "old", deep=True)
    assert states(checks, "FAIL") == ["annotations"]
    assert ROOT_KEY in checks["annotations"].detail
    assert states(checks, "PASS") == ["manifest", "config", "layer 1"]


def test_no_image_and_no_time(store: LayoutStore) -> None:
    """What does not exist is an error, and so is being told to give up."""
    with pytest.raises(NotFoundError, match="no image is called 'nothing'"):
        verify_image(store, "nothing")
    stop = Stop()
    stop.set()
    with pytest.raises(UnavailableError, match="stopped"):
        verify_image(store, "base", stop=stop)


def test_history(store: LayoutStore) -> None:
    """The last step first; steps without a layer have none; odd entries and untold layers do no harm."""
    manifest = store.read_manifest(digest_of(store))
    (layer,) = manifest.layers
    assert [(step.layer, step.size_bytes, step.created) for step in image_history(store, "base")] == [
        (layer.digest, layer.size, "")
    ]
    told: list[Any] = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "COPY a b", "comment": "c"},
        {"created_by": "ENV X=1", "empty_layer": True},
        "junk",
    ]
    config = store.put_bytes(encode_object({**store.read_config(manifest).raw, "history": told}))
    data = Manifest(
        Descriptor(media.CONFIG, config, store.size(config)), manifest.layers, manifest.annotations
    ).encode()
    store.publish(Descriptor(media.MANIFEST, store.put_bytes(data), len(data)), "told")
    steps = image_history(store, "told")
    assert [(step.created_by, step.layer, step.comment) for step in steps] == [
        ("", "", ""),
        ("ENV X=1", "", ""),
        ("COPY a b", layer.digest, "c"),
    ]


def test_tagging(store: LayoutStore, tmp_path: Path) -> None:
    """A second name, by name and by digest; a name that is moved leaves its image in the store."""
    first = digest_of(store)
    assert tag_image(store, "base", "stable") == digest_of(store, "stable") == first
    other = mint_sound(store, tmp_path, "other", tar(file("x", b"y"))).manifest_digest
    assert tag_image(store, other[:19], "stable") == digest_of(store, "stable") == other
    tag_image(store, "stable", "base")
    assert first in {entry.digest for entry in store.index().manifests}
    with pytest.raises(UsageError, match="invalid image name"):
        tag_image(store, "base", "a/b")
    with pytest.raises(NotFoundError, match="no image is called 'nothing'"):
        tag_image(store, "nothing", "x")
    assert store.tag("x") is None
