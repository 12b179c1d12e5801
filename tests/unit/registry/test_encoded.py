"""Registries behind proxies that gzip what passes, whatever was asked; and stores that only call a layer gzipped."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.budget import Reserve
from shed.errors import DataError, RegistryError, UnavailableError
from shed.oci import media
from shed.oci.digest import Digest, digest_bytes
from shed.oci.registry.client import Repository
from shed.oci.registry.encoding import Gunzip
from shed.oci.staging import StagedBlob
from support.registries.scripted_registry import Fault, Handler, Registry

Connect = Callable[..., Repository]
BLOB = os.urandom(1_000_000) + bytes(4_000_000)


def encoded(data: bytes, coding: str = "gzip", *, cut: int = 0, length: bool = True) -> Fault:
    """Answer with `data` as it is, under a Content-Encoding; without its last `cut` bytes."""

    def fault(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Encoding", coding)
        handler.send_header("Docker-Content-Digest", "")
        if length:
            handler.send_header("Content-Length", str(len(data)))
        else:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        sent = data[: len(data) - cut]
        if length:
            handler.wfile.write(sent)
            return handler.end() if cut else True
        for start in range(0, len(sent), 100_000):
            piece = sent[start : start + 100_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")
        return True

    return fault


def fetch(repository: Repository, folder: Path, data: bytes, size: int | None) -> bytes:
    """Return the blob `data` as it was fetched."""
    with StagedBlob.create(folder, Reserve(folder).check) as blob:
        repository.fetch_blob(digest_bytes(data), blob, size=size)
        blob.content()
        return blob.path.read_bytes()


@pytest.mark.parametrize("size", [len(BLOB), None], ids=["known size", "unknown size"])
@pytest.mark.parametrize("length", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("coding", ["gzip", "X-GZip"])
def test_a_blob(
    registry: Registry, connect: Connect, tmp_path: Path, size: int | None, length: bool, coding: str
) -> None:
    """It is unpacked, and its size and digest are those of the blob."""
    registry.once("GET", "/blobs/", encoded(gzip.compress(BLOB, 1), coding, length=length))
    assert fetch(connect(), tmp_path, BLOB, size) == BLOB


def test_a_layer_that_is_only_called_gzipped(registry: Registry, connect: Connect, tmp_path: Path) -> None:
    """It is a gzip file, which is what the digest means."""
    layer = gzip.compress(BLOB, 1)
    registry.once("GET", "/blobs/", encoded(layer))
    assert fetch(connect(), tmp_path, layer, len(layer)) == layer


def test_a_layer_that_was_gzipped_again(registry: Registry, connect: Connect, tmp_path: Path) -> None:
    """Once is undone, and not twice."""
    layer = gzip.compress(BLOB, 1)
    registry.once("GET", "/blobs/", encoded(gzip.compress(layer, 1)))
    assert fetch(connect(), tmp_path, layer, len(layer)) == layer


@pytest.mark.parametrize("size", [len(BLOB), None], ids=["known size", "unknown size"])
def test_a_stream_that_is_cut(registry: Registry, connect: Connect, tmp_path: Path, size: int | None) -> None:
    """It is taken up where it was cut; the registry sends the rest without encoding."""
    registry.add(BLOB)
    registry.once("GET", "/blobs/", encoded(gzip.compress(BLOB, 1), cut=200_000))
    assert fetch(connect(), tmp_path, BLOB, size) == BLOB
    start = int(registry.requests("GET", "/blobs/")[-1].headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start < len(BLOB)


def test_a_stream_that_ends_early_and_says_nothing(registry: Registry, connect: Connect, tmp_path: Path) -> None:
    """Of an unknown size, too, it is no whole blob."""
    registry.once("GET", "/blobs/", encoded(gzip.compress(BLOB, 1)[:-9], length=False), times=9)
    with pytest.raises(UnavailableError, match="the connection was cut"):
        fetch(connect(waits=()), tmp_path, BLOB, None)


@pytest.mark.parametrize("data", [b"not gzip", gzip.compress(BLOB, 1)[:5000] + b"damaged" * 1000])
def test_what_is_no_gzip(registry: Registry, connect: Connect, tmp_path: Path, data: bytes) -> None:
    """Damage is one clear error."""
    registry.once("GET", "/blobs/", encoded(data), times=9)
    with pytest.raises((UnavailableError, RegistryError)):
        fetch(connect(waits=()), tmp_path, BLOB, len(BLOB))


def test_more_than_was_promised(registry: Registry, connect: Connect, tmp_path: Path) -> None:
    """A small body that unpacks to gigabytes is left when the size is reached."""
    bomb = gzip.compress(bytes(300_000_000), 9)
    registry.once("GET", "/blobs/", encoded(bomb))
    with pytest.raises(DataError, match=f"has more than {len(BLOB)} bytes"):
        fetch(connect(), tmp_path, BLOB, len(BLOB))


def test_gunzip_gives_no_more_at_once_than_is_asked_for() -> None:
    """So a bomb takes no memory."""
    bomb = gzip.compress(bytes(50_000_000), 9)
    pieces = [len(piece) for piece in Gunzip().feed(bomb, 1 << 16)]
    assert max(pieces) <= 1 << 16
    assert sum(pieces) == 50_000_000
    with pytest.raises(zlib.error):
        list(Gunzip().feed(b"x" * 100, 10))


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate"])
def test_other_encodings(registry: Registry, connect: Connect, tmp_path: Path, coding: str) -> None:
    """They are named, and not taken for damage."""
    registry.once("GET", "/blobs/", encoded(BLOB, coding), times=9)
    with pytest.raises(RegistryError, match=f"sends its answer as '{coding}', which nobody asked for"):
        fetch(connect(), tmp_path, BLOB, len(BLOB))


def test_manifests(registry: Registry, connect: Connect) -> None:
    """They are unpacked too; of one that is only asked about, the encoded size says nothing."""
    data = json.dumps({"schemaVersion": 2, "x": "y" * 1000}).encode()
    digest: Digest = registry.add_manifest("v1", data, media.MANIFEST)
    registry.once("GET", "/manifests/", encoded(gzip.compress(data)))
    assert connect().get_manifest(digest).data == data

    def head(handler: Handler) -> bool:
        return handler.answer(200, b"x", Content_Encoding="gzip", Docker_Content_Digest=digest)

    registry.once("HEAD", "/manifests/", head)
    described = connect().head_manifest("v1")
    assert described is not None
    assert described.size == 0


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_manifest_that_is_taken(registry: Registry, connect: Connect, status: int) -> None:
    """Some registries answer so when they have it."""

    def put(handler: Handler) -> bool:
        handler.body()
        return handler.answer(status)

    registry.once("PUT", "/manifests/", put)
    assert connect(push=True).put_manifest("v1", b"{}", media.MANIFEST) == digest_bytes(b"{}")
