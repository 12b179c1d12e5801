"""The service object: nothing is removed unless all who need images are known, and it costs nothing to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shed.errors import ConflictError, DataError, ShedError
from shed.images.pins import Pin
from shed.images.service import Images
from shed.oci.store import LayoutStore
from support.images.stored import put_image


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store with the images ``used`` and ``free``, the second without a name."""
    store = LayoutStore(tmp_path / "images")
    put_image(store, "used", "used")
    put_image(store, "free", "free")
    store.untag("free")
    return store


def images_with(store: LayoutStore, *errors: ShedError) -> Images:
    """Return the service of a store whose image ``used`` a shed needs, and of which these records cannot be read."""
    tag = store.tag("used")
    assert tag
    return Images(store.root, None, lambda: ([Pin(tag.digest, "shed 'dev'", "delete it")], list(errors)))


def test_without_pins_nothing_is_removed(store: LayoutStore) -> None:
    """Who did not say what looks for pins made a mistake in the program, and loses no image by it."""
    images, before = Images(store.root), store.blob_digests()
    for use in (images.prune, lambda: images.remove("used"), images.list_all):
        with pytest.raises(RuntimeError, match="without saying who needs them"):
            use()
    assert (store.blob_digests(), store.tag_names()) == (before, ["used"])


def test_a_record_that_cannot_be_read(store: LayoutStore) -> None:
    """It is a warning in a list, and stops what removes."""
    images, before = images_with(store, DataError("the record of x is damaged")), store.blob_digests()
    listed, warnings = images.list_all()
    assert ([image.in_use for image in listed if image.name == "used"], warnings) == (
        [["shed 'dev'"]],
        ["the record of x is damaged"],
    )
    for use in (images.prune, lambda: images.remove("used")):
        with pytest.raises(DataError, match="the record of x"):
            use()
    assert store.blob_digests() == before


def test_what_somebody_needs_stays(store: LayoutStore) -> None:
    """And the rest goes."""
    images = images_with(store)
    with pytest.raises(ConflictError, match="in use by shed 'dev'"):
        images.remove("used")
    assert images.prune().images == 1
    assert [image.name for image in images.list_all()[0]] == ["used"]


def test_importing_it_imports_nothing_that_does_the_work() -> None:
    """A server imports it when it starts."""
    program = (
        "import sys, shed.images.service; print([m for m in sys.modules if m.startswith(('shed.oci', 'shed.erofs'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
