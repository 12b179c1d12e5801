"""Which image of the store was built here of what: ``{images}/projects.json``, ``{"built": {KEY: MANIFEST}}``.

Only what has just built an image writes there.  Nothing that an image says of itself counts: a label is anybody's, and
an image that builds on another has the labels of that.
"""

from __future__ import annotations

import json

from shed.errors import DataError, ShedError
from shed.fsutil import atomic_write, locked
from shed.images.annotations import BootAnnotations, boot_blobs
from shed.images.references import all_tags
from shed.oci.digest import Digest, is_digest
from shed.oci.fields import Fields, decode_object
from shed.oci.store import LayoutStore

FILE = "projects.json"


def find_image(store: LayoutStore, key: Digest) -> Digest | None:
    """Return the manifest of the image that was built of `key`, if it has a name and all that it boots from."""
    digest = _read(store).get(key)
    if digest is None or digest not in {tagged for _, tagged in all_tags(store)}:
        return None
    try:
        blobs = boot_blobs(digest, BootAnnotations.parse(store.read_manifest(digest).annotations))
    except ShedError:  # whatever is wrong with it, it is built again
        return None
    return digest if all(store.has(blob) for blob in blobs.values()) else None


def note_image(store: LayoutStore, key: Digest, digest: Digest) -> None:
    """Note that the image with the manifest `digest` was built of `key`; forget those that are gone."""
    with locked(store.root / f".{FILE}.lock"):
        known = {made_of: built for made_of, built in _read(store).items() if store.has(built)}
        text = json.dumps({"built": known | {key: digest}}, indent=2, sort_keys=True)
        atomic_write(store.root / FILE, f"{text}\n")


def _read(store: LayoutStore) -> dict[Digest, Digest]:
    path = store.root / FILE
    try:
        texts = Fields(decode_object(path.read_bytes(), f"{path}"), f"{path}").texts("built")
    except (FileNotFoundError, DataError):  # what cannot be read is built again
        return {}
    return {Digest(key): Digest(found) for key, found in texts.items() if is_digest(key) and is_digest(found)}
