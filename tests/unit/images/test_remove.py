"""Taking names away, and looking images up by the reference they were pulled by."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.config.paths import Paths
from shed.errors import ConflictError, DataError, NotFoundError, UsageError
from shed.images import references
from shed.images.listing import inspect_image, list_images
from shed.images.references import find_image
from shed.images.tags import Removed, remove_image
from shed.oci.digest import Digest, digest_bytes, hex_of, short
from shed.oci.store import LayoutStore
from shed.sheds.pins import pins
from support.images.stored import put_image, put_shed, put_snapshot

REF = "example.org/base:v1"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """The folders of a server."""
    return Paths(tmp_path / "data", tmp_path / "run")


@pytest.fixture
def store(paths: Paths) -> LayoutStore:
    """Its store."""
    return LayoutStore(paths.images)


@pytest.fixture
def base(store: LayoutStore) -> Digest:
    """An image with two tags and a reference."""
    digest = put_image(store, "base", "base")
    put_image(store, "base", "second")
    references.record(store, REF, digest)
    return digest


def test_a_tag_is_removed_alone(store: LayoutStore, base: Digest) -> None:
    """With the last one the references go too: a create must not use what was removed.  The blobs stay."""
    assert remove_image(store, "base", [], {}) == Removed(base, ["base"], [], [])
    assert references.lookup(store, REF) == base
    assert remove_image(store, "second", [], {}) == Removed(base, ["second"], [REF], [])
    assert references.lookup(store, REF) is None
    assert store.has(base)
    assert find_image(store, base).name == ""
    with pytest.raises(NotFoundError):
        remove_image(store, "base", [], {})


def test_a_tag_that_moves_meanwhile_stays(store: LayoutStore, base: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it means now was not what was asked for."""
    monkeypatch.setattr("shed.images.tags.all_tags", lambda store: [("base", base), ("second", base)])
    other = put_image(store, "other", "second")
    remove_image(store, base, [], {})
    tag = store.tag("second")
    assert tag is not None
    assert tag.digest == other
    assert store.tag("base") is None


@pytest.mark.parametrize("by", ["reference", "digest", "short"])
def test_a_reference_or_a_digest_takes_all_names(store: LayoutStore, base: Digest, by: str) -> None:
    """Nothing names the image afterwards; doing it twice by digest is no failure, so that a script can go through a
    list.
    """
    name = {"reference": REF, "digest": base, "short": short(base)}[by]
    assert remove_image(store, name, [], {}) == Removed(base, ["base", "second"], [REF], [])
    assert store.tag_names() == []
    assert remove_image(store, base, [], {}) == Removed(base, [], [], [])


def test_what_is_in_use_stays(store: LayoutStore, paths: Paths, base: Digest) -> None:
    """Its users are named.  One of several tags goes, as with docker; the last one does not."""
    put_shed(paths, "dev", base)
    put_snapshot(paths, "snap", base)

    def stays(*names: str) -> None:
        for name in names:
            with pytest.raises(ConflictError, match="in use by shed 'dev', snapshot 'snap'") as caught:
                remove_image(store, name, pins(paths), {})
            assert caught.value.code == "IMAGE_IN_USE"

    stays(REF, base)
    assert remove_image(store, "second", pins(paths), {}) == Removed(base, ["second"], [], [])
    stays("base", REF, base)
    assert store.tag_names() == ["base"]


def test_the_configuration_is_warned_of(store: LayoutStore, base: Digest) -> None:
    """Whoever creates a shed next may wonder."""
    configured = {"default_image": "base", "image_aliases.b": REF, "image_aliases.c": "other"}
    assert remove_image(store, "base", [], configured).warnings == [
        "default_image in the server's configuration names base"
    ]
    assert remove_image(store, base, [], configured).warnings == [
        f"image_aliases.b in the server's configuration names {REF}"
    ]


def test_damage_can_be_removed(store: LayoutStore, base: Digest) -> None:
    """A tag whose file is broken, and an image whose manifest is."""
    path = store.blob_path(base)
    path.chmod(0o644)
    path.write_text("junk")
    assert remove_image(store, "base", [], {}).tags == ["base"]
    (store.tags / "second.json").write_text("junk")
    assert remove_image(store, "second", [], {"default_image": "second"}) == Removed(
        "", ["second"], [], ["default_image in the server's configuration names second"]
    )
    assert store.tag_names() == []
    (store.root / "index.json").write_text("junk")
    with pytest.raises(DataError, match=r"index\.json"):
        remove_image(store, base, [], {})


def test_a_reference_is_only_a_hit_when_all_is_right(store: LayoutStore, base: Digest) -> None:
    """Anything else is a miss, never a failure."""
    assert find_image(store, REF).digest == base
    assert find_image(store, REF).name == "base"
    path = store.root / f"refs/{hex_of(digest_bytes(REF.encode()))}.json"
    good = path.read_text()
    for junk in (
        "",
        "[]",
        '{"ref": "example.org/base:v1"}',
        good.replace("base:v1", "base:v2"),
        good.replace(base, "sha256:x"),
    ):
        path.write_text(junk)
        assert references.lookup(store, REF) is None
    path.unlink()
    path.mkdir()
    assert references.lookup(store, REF) is None
    path.rmdir()
    references.record(store, REF, base)
    assert references.lookup(store, REF) == base
    assert references.lookup(store, "example.org/base:v2") is None
    references.record(store, REF, put_image(store, "old", root=False))
    assert references.lookup(store, REF) is None
    references.record(store, REF, base)
    root = next(digest for digest in store.inventory() if store.read_bytes(digest) == b"root of base")
    store.blob_path(root).unlink()
    assert references.lookup(store, REF) is None
    with pytest.raises(NotFoundError, match="no image is called"):
        find_image(store, REF)


def test_a_local_tag_wins_over_a_reference(store: LayoutStore, base: Digest) -> None:
    """What was built here is what its name means; a reference wins over what looks like a digest."""
    other = put_image(store, "other", "other")
    references.record(store, "other", base)
    assert find_image(store, "other").digest == other
    references.record(store, hex_of(other), base)
    assert find_image(store, hex_of(other)).digest == base
    with pytest.raises(UsageError, match="too short"):
        find_image(store, "sha256:abc")


def test_the_list_says_who_needs_what(store: LayoutStore, paths: Paths, base: Digest) -> None:
    """Where an image comes from, its references and its users; an image without a root is listed and marked."""
    dangling, old = put_image(store, "dangling"), put_image(store, "old", root=False)
    put_shed(paths, "dev", old)
    references.record(store, "example.org/x:v1", dangling)
    images = {(image.name, image.digest): image for image in list_images(store, pins(paths), {"default_image": REF})}
    assert {key: (image.source, image.references, image.in_use, image.bootable) for key, image in images.items()} == {
        ("base", base): ("config", [REF], [], True),
        ("second", base): ("config", [REF], [], True),
        ("", dangling): ("dangling", ["example.org/x:v1"], [], True),
        ("", old): ("user", [], ["shed 'dev'"], False),
    }
    assert "lacks io.shed.rootfs.erofs.digest" in images["", old].warning
    about = inspect_image(store, old, pins(paths), {})
    assert (about["in_use"], about["source"], about["references"]) == (["shed 'dev'"], "user", [])
