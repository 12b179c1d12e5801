"""Names in a hostile archive are shown and never obeyed: no message holds a character that a terminal acts on.

On commit 6aee119 platforms, layers' paths, names in an index and a reference to pull again went into messages as they
were.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.errors import ShedError
from shed.images.load import load_images
from shed.images.mint import mint_archive
from shed.images.resolve import resolve_image
from shed.images.sources import open_source, parse_source
from shed.oci import media
from shed.oci.archive import open_archive
from shed.oci.descriptor import Platform
from shed.oci.digest import digest_bytes
from shed.oci.selection import select_image, select_named
from shed.oci.store import LayoutStore
from shed.progress import Progress, WarningEvent
from support.images.minted import LAYER, digest_of, mint_sound, small_kit, variant
from support.layers.tars import Image, Item, file, flat, folder, hardlink, symlink, tar

ODD = "\x1b]0;owned\x07\n\x9b31m\u202e\udcff"
"""A title of a terminal, a line, a C1 sequence, right to left, and a byte that is no UTF-8."""
WIRE = ODD.replace("\udcff", "\u0085")
"""As JSON may have it."""


def told(work: Callable[[], object]) -> str:
    """Return what the one error says, after looking at every character of it."""
    with pytest.raises(ShedError) as caught:
        work()
    text = f"{caught.value.message} {caught.value.hint or ''}"
    assert text.isprintable(), ascii(text)
    return text


@pytest.mark.parametrize(
    "items",
    [
        [file(ODD), hardlink("x", f"{ODD}/gone")],
        [file("../" + ODD)],
        [file(ODD), file(f"{ODD}/below")],
        [symlink(ODD, ODD), file(f"{ODD}/x"), file("y" * 300 + ODD)],
        [folder("a"), file(f"a/.wh.{ODD}/x")],
        [file(ODD, uid=1 << 40)],
    ],
    ids=["hardlink", "climbing", "no folder", "long", "whiteout", "owner"],
)
def test_layers(items: list[Item]) -> None:
    """Every way in which a member's name gets into an error."""
    told(lambda: flat(items))


def index_of(path: Path, change: Callable[[Image], None]) -> Path:
    """Write an archive of an image that was bent."""
    image = Image(LAYER)
    change(image)
    return image.archive(path)


def test_platforms(tmp_path: Path) -> None:
    """Of the index, and of the config."""
    odd = {"platform": {"os": WIRE, "architecture": WIRE}}

    def two(image: Image) -> None:
        image.seal(**odd)
        image.config["extra"] = 1
        image.seal(**odd)

    with open_archive(index_of(tmp_path / "index.tar", two), scratch=tmp_path) as archive:
        assert "\\x1b" in told(lambda: select_image(archive, Platform("linux", "amd64")))
    store = LayoutStore(tmp_path / "images")
    path = index_of(tmp_path / "config.tar", lambda image: image.config.update(os=WIRE, architecture=WIRE))
    assert "\\x1b" in told(lambda: mint_archive(store, path, "x", kit=small_kit(store)))


def test_names_of_an_index(tmp_path: Path) -> None:
    """Those that a file has when the one that was asked for is not there; and those that cannot be names here."""

    def named(image: Image) -> None:
        image.seal(annotations={"org.opencontainers.image.ref.name": WIRE})

    path = index_of(tmp_path / "named.tar", named)
    store = LayoutStore(tmp_path / "images")

    def opened() -> None:
        with open_source(parse_source(f"oci-archive:{path}:other"), store=store, platform=None, progress=Progress()):
            pass

    assert "\\x1b" in told(opened)
    mint_sound(store, tmp_path)
    manifest = store.read_bytes(digest_of(store))
    entry = {"mediaType": media.MANIFEST, "digest": digest_bytes(manifest), "size": len(manifest)}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {"org.opencontainers.image.ref.name": WIRE}}]}
    blobs = {digest[7:]: store.blob_path(digest).read_bytes() for digest in store.blob_digests()}
    items = [
        file("index.json", json.dumps(index).encode()),
        *(file(f"blobs/sha256/{name}", data) for name, data in blobs.items()),
    ]
    (tmp_path / "load.tar").write_bytes(tar(*items))
    warnings: list[str] = []
    load_images(
        store,
        tmp_path / "load.tar",
        progress=Progress(lambda event: warnings.append(str(event)) if isinstance(event, WarningEvent) else None),
    )
    assert len(warnings) == 1
    assert warnings[0].isprintable()


def test_paths_of_a_docker_archive(tmp_path: Path) -> None:
    """Of a layer that is missing, and of one that is a link."""
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_bytes(LAYER)]}}
    ).encode()
    name = "\x1b]0;owned\x07"
    manifest = json.dumps([{"Config": "c.json", "Layers": [name], "RepoTags": [WIRE]}]).encode()
    for extra in ([], [symlink(name, "elsewhere")]):
        path = tmp_path / "saved.tar"
        path.write_bytes(gzip.compress(tar(file("manifest.json", manifest), file("c.json", config), *extra)))

        def opened(path: Path = path) -> None:
            with open_archive(path, scratch=tmp_path) as archive:
                select_named(archive)

        assert "\\x1b" in told(opened)


def test_where_to_pull_an_image_again(tmp_path: Path) -> None:
    """The reference that an image says it was built for is its publisher's to choose."""
    store = LayoutStore(tmp_path / "images")
    mint_sound(store, tmp_path)
    variant(store, "odd", {"io.shed.source-ref": WIRE})
    resolve_image(store, "odd").root.unlink()
    assert "shed image pull \\x1b" in told(lambda: resolve_image(store, "odd"))
