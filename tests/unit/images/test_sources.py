"""Images that exist already: the forms of a reference, and one image among several of an archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.errors import NotFoundError, UsageError
from shed.images.sources import SourceRef, open_source, parse_source
from shed.oci.manifest import REF_NAME
from shed.oci.selection import select_image
from shed.oci.store import LayoutStore
from shed.progress import Progress
from support.images.minted import LAYER
from support.layers.tars import Image, file, tar


@pytest.mark.parametrize(
    ("text", "source", "source_ref"),
    [
        ("debian", SourceRef("", "debian"), "debian"),
        ("localhost:5000/a/b:v1", SourceRef("", "localhost:5000/a/b:v1"), "localhost:5000/a/b:v1"),
        ("docker:v1", SourceRef("", "docker:v1"), "docker:v1"),
        ("docker://ghcr.io/a/b@sha256:00", SourceRef("docker", "ghcr.io/a/b@sha256:00"), "ghcr.io/a/b@sha256:00"),
        ("containers-storage:localhost/a:v1", SourceRef("containers-storage", "localhost/a:v1"), ""),
        ("docker-daemon:a:v1", SourceRef("docker-daemon", "a:v1"), ""),
        ("oci:/a/b:v1", SourceRef("oci", "/a/b", "v1"), ""),
        ("oci-archive:a.tar", SourceRef("oci-archive", "a.tar"), ""),
        ("docker-archive:a.tar:b.example:5000/c:v1", SourceRef("docker-archive", "a.tar", "b.example:5000/c:v1"), ""),
    ],
)
def test_the_forms_of_a_reference(text: str, source: SourceRef, source_ref: str) -> None:
    """Each transport has its own; only a registry's name says what an image was made from."""
    assert parse_source(text) == source
    assert source.source_ref == source_ref


def test_a_path_with_a_colon(tmp_path: Path) -> None:
    """What is there is a path, and no tag."""
    (tmp_path / "a:b").touch()
    assert parse_source(f"oci-archive:{tmp_path}/a:b") == SourceRef("oci-archive", f"{tmp_path}/a:b")


@pytest.mark.parametrize("text", ["", "docker://", "oci:", "containers-storage:-x", "--help", "./a.tar", "/a.tar"])
def test_what_is_no_reference(text: str) -> None:
    """Options and paths are no names; the hint shows one."""
    with pytest.raises(UsageError, match=r"names no image|is a path") as caught:
        parse_source(text)
    assert "oci-archive:" in (caught.value.hint or "")


def test_a_tag_chooses_among_the_images_of_an_archive(tmp_path: Path) -> None:
    """By its name there, by the last part of it, or by the full name that docker adds; the names are told when there is
    none.
    """
    whole = Image()
    digests = {}
    names = {
        "one": {REF_NAME: "one"},
        "two": {REF_NAME: "example.org/two:1", "io.containerd.image.name": "docker.io/library/two:2"},
    }
    for name, said in names.items():
        image = Image(LAYER, tar(file(name)))
        digests[name] = image.seal(annotations=said)["digest"]
        whole.blobs |= image.blobs
        whole.index["manifests"] += image.index["manifests"]
    path = whole.archive(tmp_path / "a.tar")
    store = LayoutStore(tmp_path / "images")

    def opened(tag: str) -> str:
        source = SourceRef("oci-archive", str(path), tag)
        with open_source(source, store=store, platform=None, progress=Progress()) as archive:
            return select_image(archive).digest

    assert opened("one") == digests["one"]
    assert {opened(tag) for tag in ("example.org/two:1", "two:1", "docker.io/library/two:2")} == {digests["two"]}
    with pytest.raises(NotFoundError, match=r"no image 'wo:1', only docker\.io/library/two:2, example\.org/two:1, one"):
        opened("wo:1")
