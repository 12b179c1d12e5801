"""Features as they are published: artifacts with one tar archive, pushed by our own client of registries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shed.images.devcontainer.resolve import CONFIG_TYPE, LAYER_TYPE
from shed.oci import media
from shed.oci.content import BytesSource
from shed.oci.digest import Digest, digest_bytes
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from support.layers.tars import file, tar


def feature_files(name: str, script: str, **says: Any) -> dict[str, bytes]:
    """Return the files of a feature whose ``devcontainer-feature.json`` has the members `says`."""
    document = {"id": name, "version": "1.0.0", "name": name, **says}
    return {"devcontainer-feature.json": json.dumps(document).encode(), "install.sh": f"#!/bin/sh\n{script}\n".encode()}


def feature_archive(files: Mapping[str, bytes]) -> bytes:
    """Return the tar archive of a feature, with names as the usual tools write them."""
    return tar(*(file(f"./{path}", data) for path, data in files.items()))


def push_feature(place: str, archive: bytes, tags: Sequence[str] = ("1",), layer_type: str = LAYER_TYPE) -> Digest:
    """Push an archive to ``REGISTRY/NAMESPACE/ID`` under each of `tags`; return the digest of its manifest."""
    with Repository(parse_reference(place), push=True) as repository:
        blobs = [b"{}", archive]
        for data in blobs:
            repository.upload_blob(digest_bytes(data), BytesSource(data))
        config, layer = ({"digest": digest_bytes(data), "size": len(data)} for data in blobs)
        document = {
            "schemaVersion": 2,
            "mediaType": media.MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, **config},
            "layers": [{"mediaType": layer_type, **layer}],
        }
        data = json.dumps(document).encode()
        for tag in tags:
            repository.put_manifest(tag, data, media.MANIFEST)
    return digest_bytes(data)
