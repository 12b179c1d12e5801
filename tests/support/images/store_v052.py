"""A data folder as v0.5.2 of the implementation in Go leaves it, written file by file, without any code of ours.

Blobs are 0444 beside their lock files; every manifest is in the index, 2-space JSON; tags have nanoseconds and a zone;
there is no ``refs``, ``leases``, ``verified`` or ``kit.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class StoreV052:
    """The folder `data`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.root = data / "images"
        self.blobs = self.root / "blobs/sha256"
        self.blobs.mkdir(parents=True)
        (self.root / "tags").mkdir()
        (self.root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self.root / ".index.lock").touch()
        (self.blobs / ".staging-1234567.tmp").write_bytes(b"begun")
        self._entries: list[dict[str, object]] = []

    def names(self) -> set[str]:
        """Return what is in the folder of the blobs."""
        return {path.name for path in self.blobs.iterdir()}

    def put_blob(self, data: bytes) -> str:
        """Write a blob and return its digest."""
        name = hashlib.sha256(data).hexdigest()
        path = self.blobs / name
        if not path.exists():
            path.write_bytes(data)
            path.chmod(0o444)
            (self.blobs / f".{name}.lock").touch()
        return f"sha256:{name}"

    def put_image(self, manifest: bytes, blobs: Iterable[bytes], tag: str | None = None) -> str:
        """Write an image and list it, under a tag or, as when its tag has moved on, without; return its digest."""
        for blob in blobs:
            self.put_blob(blob)
        digest = self.put_blob(manifest)
        entry: dict[str, object] = {"mediaType": MANIFEST, "digest": digest, "size": len(manifest)}
        if tag is not None:
            entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
            record = {"digest": digest, "updated_at": "2025-11-02T10:11:12.123456789+01:00"}
            (self.root / f"tags/{tag}.json").write_text(json.dumps(record, indent=2))
            (self.root / f"tags/{tag}.lock").touch()
        self._entries.append(entry)
        (self.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self._entries}, indent=2))
        return digest

    def put_shed(self, name: str, digest: str) -> Path:
        """Write a stopped shed of Firecracker; return its folder."""
        folder = self.data / "instances" / name
        folder.mkdir(parents=True)
        upper = self.data / "uppers" / name / "upper.ext4"
        upper.parent.mkdir(parents=True)
        upper.write_bytes(bytes(4096))
        record = {
            "schema_version": 3, "name": name, "backend": "firecracker", "status": "stopped",
            "created_at": "2025-11-02T10:12:00.5Z", "lower_digest": digest, "lower_image_tag": "base",
            "upper_path": str(upper), "upper_size_bytes": 5 << 30, "cpus": 2, "memory_mb": 4096, "pid": 0, "cid": 101,
            "ip_address": "172.30.0.2", "tap_device": "shed-tap-1",
        }  # fmt: skip
        (folder / "metadata.json").write_text(json.dumps(record, indent=2))
        return folder

    def put_snapshot(self, name: str, digest: str) -> Path:
        """Write a snapshot; return its folder."""
        folder = self.data / "snapshots" / name
        folder.mkdir(parents=True)
        record = {
            "version": 2, "name": name, "backend": "firecracker", "source_shed": "gone", "source_image": "base",
            "comment": "", "size_bytes": 4096, "created_at": "2025-11-02T10:13:00Z", "lower_digest": digest,
        }  # fmt: skip
        (folder / "snapshot.json").write_text(json.dumps(record, indent=2))
        (folder / "upper.ext4").write_bytes(bytes(4096))
        return folder
