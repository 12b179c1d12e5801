"""Commands that read a whole store of 500 images and 5,000 blobs, beside one that asks the server for very little."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from benchmarks.harness import command, compare, show
from benchmarks.material import CACHE
from benchmarks.world import SHED, shed
from shed.config.paths import Paths
from shed.oci import media
from shed.oci.digest import digest_bytes, hex_of
from shed.oci.manifest import REF_NAME
from support.images.stored import image_parts, put_shed

IMAGES, LAYERS = 500, 7
"""With manifest, config and root that is ten blobs an image."""


def main() -> None:
    """Compare `image ls` and `image prune --dry-run` with `list`; one image in ten is dangling, one in ten in use."""
    root = CACHE / "store"
    shutil.rmtree(root, ignore_errors=True)
    before = {name: os.environ.get(name) for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR")}
    os.environ["SHED_DATA_DIR"], os.environ["SHED_RUNTIME_DIR"] = str(root / "data"), str(root / "run")
    _fill(Paths())
    try:
        shed("list")
        for words in (["image", "ls"], ["image", "prune", "--dry-run"], ["system", "df"]):
            result = compare(command([SHED, *words]), command([SHED, "list"]), runs=10)
            show(f"{IMAGES} images", f"shed {' '.join(words)}", "shed list", result)
    finally:
        shed("server", "stop")
        os.environ.update({name: value for name, value in before.items() if value is not None})
        shutil.rmtree(root)


def _fill(paths: Paths) -> None:
    """Write the store as plain files: the store's own way syncs each one."""
    blobs, tags = paths.images / "blobs/sha256", paths.images / "tags"
    blobs.mkdir(parents=True)
    tags.mkdir()
    entries = []
    for number in range(IMAGES):
        name = f"image-{number:03}"
        manifest, parts = image_parts(name, layers=LAYERS)
        data = manifest.encode()
        digest = digest_bytes(data)
        for part in (data, *parts):
            _write(blobs / hex_of(digest_bytes(part)), part)
        entry = {"mediaType": media.MANIFEST, "digest": digest, "size": len(data)}
        if number % 10:
            (tags / f"{name}.json").write_text(json.dumps({"digest": digest, "updated_at": "2026-01-01T00:00:00Z"}))
            entry["annotations"] = {REF_NAME: name}
        if number % 10 == 1:
            put_shed(paths, f"shed-{number}", digest)
        entries.append(entry)
    (paths.images / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": entries})
    )
    (paths.images / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.with_name(f".{path.name}.lock").touch()
