"""What makes a prune refuse: records that are damaged, odd, or not to be understood."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from shed.config.paths import Paths
from shed.images import references
from shed.images.bootkit.kit import KIT_FILE
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes
from shed.oci.manifest import Index
from shed.oci.store import LayoutStore
from shed.sheds import metadata
from support.images.stored import put_shed, put_snapshot


def damage_tag(paths: Paths, digest: Digest) -> Path:
    """Break a tag."""
    path = paths.images / "tags/base.json"
    path.write_text("junk")
    return path


def damage_index(paths: Paths, digest: Digest) -> Path:
    """Break the index."""
    path = paths.images / "index.json"
    path.write_text("{")
    return path


def damage_manifest(paths: Paths, digest: Digest) -> Path:
    """Alter the manifest of a tag."""
    path = LayoutStore(paths.images).blob_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    return path


def odd_annotation(paths: Paths, digest: Digest) -> Path:
    """Tag an image of a schema that is not known."""
    store = LayoutStore(paths.images)
    data = store.read_bytes(digest).replace(b'schema-version": "1"', b'schema-version": "9"')
    store.publish(Descriptor(media.MANIFEST, store.put_bytes(data), len(data)), "odd")
    return store.blob_path(digest_bytes(data))


def damage_kit(paths: Paths, digest: Digest) -> Path:
    """Break the kit's record."""
    path = paths.images / KIT_FILE
    path.write_text("{}")
    return path


def damage_reference(paths: Paths, digest: Digest) -> Path:
    """Break the entry of a configured reference."""
    store = LayoutStore(paths.images)
    references.record(store, "example.org/configured:v1", digest)
    (path,) = (store.root / "refs").glob("*.json")
    path.write_text("[]")
    return path


def damage_shed(paths: Paths, digest: Digest) -> Path:
    """Break a shed's record."""
    path = put_shed(paths, "dev", digest) / metadata.METADATA
    path.write_text("{")
    return path


def old_shed(paths: Paths, digest: Digest) -> Path:
    """Leave a shed of the version before."""
    folder = put_shed(paths, "dev", digest)
    path = folder / metadata.METADATA
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 2'))
    return Path("shed 'dev' was made by an older version")


def empty_shed(paths: Paths, digest: Digest) -> Path:
    """Leave an instance folder without a record."""
    path = paths.instances / "dev"
    path.mkdir(parents=True)
    return path / metadata.METADATA


def unmounted_shed(paths: Paths, digest: Digest) -> Path:
    """Have a shed's folder be a link to a disk that is not there."""
    paths.instances.mkdir(parents=True)
    (paths.instances / "dev").symlink_to("/not/mounted")
    return paths.instances / "dev" / metadata.METADATA


def shed_of_nothing(paths: Paths, digest: Digest) -> Path:
    """Leave a shed with a digest that is none."""
    return put_shed(paths, "dev", "sha256:../../x") / metadata.METADATA


def shed_without_manifest(paths: Paths, digest: Digest) -> Path:
    """Leave a shed whose image's manifest is gone: nobody knows what else it needs."""
    put_shed(paths, "dev", digest_bytes(b"gone"))
    return Path("but shed 'dev' needs it")


def damage_marker(paths: Paths, digest: Digest) -> Path:
    """Break the marker of a create."""
    path = put_shed(paths, "dev", digest) / metadata.MARKER
    path.write_text("junk")
    return path


def timeless_marker(paths: Paths, digest: Digest) -> Path:
    """Leave a marker of which it cannot be told how old it is."""
    folder = put_shed(paths, "dev", digest)
    metadata.save_marker(folder, metadata.Marker("dev", "x", digest, "yesterday"))
    return folder / metadata.MARKER


def damage_snapshot(paths: Paths, digest: Digest) -> Path:
    """Break a snapshot's record."""
    path = put_snapshot(paths, "snap", digest) / "snapshot.json"
    path.write_text('{"lower_digest": 5}')
    return path


def empty_snapshot(paths: Paths, digest: Digest) -> Path:
    """Leave a snapshot's folder without a record."""
    path = put_snapshot(paths, "snap", digest) / "snapshot.json"
    path.unlink()
    return path


def strange_lease(paths: Paths, digest: Digest) -> Path:
    """Have a process of another version hold a lease."""
    path = paths.images / "leases/1-future"
    path.parent.mkdir(exist_ok=True)
    path.write_text("everything but the kitchen sink\n")
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
    return path


def folder_for_a_blob(paths: Paths, digest: Digest) -> Path:
    """Leave a blob as v0.4 made them."""
    path = paths.images / "blobs/sha256" / ("0" * 64)
    path.mkdir()
    return path


def damaged_foreign_index(paths: Paths, digest: Digest) -> Path:
    """Damage an index that another tool put in: it may list what is needed."""
    store = LayoutStore(paths.images)
    index = store.put_bytes(Index((Descriptor(media.MANIFEST, digest, 1),)).encode())
    entries = json.loads((store.root / "index.json").read_bytes())
    entries["manifests"].append({"mediaType": media.INDEX, "digest": index, "size": 1})
    (store.root / "index.json").write_text(json.dumps(entries))
    path = store.blob_path(index)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    return path


DOUBTS = [
    damage_tag,
    damage_index,
    damage_manifest,
    odd_annotation,
    damage_kit,
    damage_reference,
    damage_shed,
    old_shed,
    empty_shed,
    unmounted_shed,
    shed_of_nothing,
    shed_without_manifest,
    damage_marker,
    timeless_marker,
    damage_snapshot,
    empty_snapshot,
    strange_lease,
    folder_for_a_blob,
    damaged_foreign_index,
]
"""Each raises one about an image that is called base, and returns the path that is to be named."""
