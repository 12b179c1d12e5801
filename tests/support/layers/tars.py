"""Tar archives and OCI archives for tests, honest and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shed.entries import Entry
from shed.oci import media
from shed.oci.content import FileSlice
from shed.oci.digest import digest_bytes, hex_of
from shed.oci.flatten import flatten
from shed.oci.tarstream import Member, read_tar
from shed.oci.unpack_limits import Unpacking

Item = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"", *, mode: int = 0o644, **fields: Any) -> Item:
    """Return a regular file; `fields` are those of `tarfile.TarInfo`."""
    info = _info(name, tarfile.REGTYPE, mode, fields)
    info.size = len(data)
    return info, data


def folder(name: str, *, mode: int = 0o755, **fields: Any) -> Item:
    """Return a folder."""
    return _info(name, tarfile.DIRTYPE, mode, fields), b""


def symlink(name: str, target: str, **fields: Any) -> Item:
    """Return a symlink."""
    return _info(name, tarfile.SYMTYPE, 0o777, {"linkname": target, **fields}), b""


def hardlink(name: str, target: str) -> Item:
    """Return another name of `target`."""
    return _info(name, tarfile.LNKTYPE, 0o644, {"linkname": target}), b""


def device(name: str, kind: bytes, major: int = 0, minor: int = 0) -> Item:
    """Return a character device, block device or fifo."""
    return _info(name, kind, 0o600, {"devmajor": major, "devminor": minor}), b""


def _info(name: str, kind: bytes, mode: int, fields: Mapping[str, Any]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = mode
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar(*items: Item, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002  tarfile's own word
    """Return an archive of `items`, in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in items:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


_open_files: list[Any] = []


def source(data: bytes) -> FileSlice:
    """Return `data` as a slice of an unnamed file, which is closed when the test ends."""
    holder = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the slice
    _open_files.append(holder)
    holder.write(data)
    holder.flush()
    return FileSlice(holder.fileno(), 0, len(data))


def close_sources() -> None:
    """Close the files of all sources."""
    while _open_files:
        _open_files.pop().close()


def members(data: bytes) -> list[Member]:
    """Return the members of the archive `data`."""
    return list(read_tar(source(data), Unpacking().part("the archive")))


def flat(*layers: Iterable[Item]) -> dict[str, Entry]:
    """Return the merged tree of `layers`, bottom first, by path; the root is ``""``."""
    return {entry.path.decode(): entry for entry in flatten(members(tar(*layer)) for layer in layers)}


def text(entry: Entry) -> str:
    """Return the content of a regular file."""
    assert stat.S_ISREG(entry.mode)
    return (entry.content.pread(entry.size, 0) if entry.content else b"").decode()


class Image:
    """An OCI image in memory, every part of which a test can bend before it is written."""

    def __init__(
        self, *layers: bytes, compress: bool = True, architecture: str = "amd64", media_types: str = "oci"
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        docker = media_types == "docker"
        layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else media.LAYER_GZIP
        self.config: dict[str, Any] = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_bytes(layer) for layer in layers]},
        }
        packed = [gzip.compress(layer, 1, mtime=0) if compress else layer for layer in layers]
        self.manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json" if docker else media.MANIFEST,
            "config": {},
            "layers": [self.blob(data, layer_type if compress else media.LAYER) for data in packed],
        }
        self.config_type = "application/vnd.docker.container.image.v1+json" if docker else media.CONFIG
        self.index: dict[str, Any] = {"schemaVersion": 2, "manifests": []}

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Add a blob and return its descriptor."""
        digest = digest_bytes(data)
        self.blobs[hex_of(digest)] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def seal(self, **descriptor: Any) -> dict[str, Any]:
        """Encode config and manifest, list them in the index with the extra members `descriptor`, and return the
        descriptor.
        """
        self.manifest["config"] = self.blob(json.dumps(self.config).encode(), self.config_type)
        entry = self.blob(json.dumps(self.manifest).encode(), self.manifest["mediaType"]) | descriptor
        self.index["manifests"].append(entry)
        return entry

    def names(self) -> dict[str, bytes]:
        """Return the files of the layout."""
        files = dict(self.files)
        files["index.json"] = json.dumps(self.index).encode()
        return files | {f"blobs/sha256/{digits}": data for digits, data in self.blobs.items()}

    def archive(self, path: Path, *extra: Item) -> Path:
        """Write an OCI archive; an image that was not sealed yet is."""
        if not self.index["manifests"]:
            self.seal()
        path.write_bytes(tar(*(file(name, data) for name, data in self.names().items()), *extra))
        return path

    def layout(self, path: Path) -> Path:
        """Write a layout folder."""
        if not self.index["manifests"]:
            self.seal()
        for name, data in self.names().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path
