"""What a registry says reaches people as one short line in which nothing is hidden, and no more of it is read than that
takes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shed.errors import RegistryError, ShedError, UsageError
from shed.images.pull import pull_image
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import digest_bytes
from shed.oci.manifest import Index
from shed.oci.registry.client import Repository
from shed.oci.store import LayoutStore
from support.registries.hostile_registry import MOST, Flood
from support.registries.scripted_registry import Registry

Connect = Callable[..., Repository]
DIGEST = digest_bytes(b"blob")
EVIL = "\x1b]0;owned\x07\x1b[2J\r\nerror: all is well\u202e" + "x" * 10_000


@pytest.mark.parametrize("status", [400, 401, 403, 404, 416, 429, 500])
def test_errors(registry: Registry, connect: Connect, status: int) -> None:
    """Escape sequences are shown, lines joined, and the rest left out."""
    registry.once(
        "GET", "manifests", lambda handler: handler.error(status, "X", EVIL, WWW_Authenticate="Basic realm=x"), times=9
    )
    with pytest.raises(ShedError) as caught:
        connect(waits=()).get_manifest("v1")
    message = caught.value.message
    assert message.isprintable()
    assert len(message) < 500
    assert "all is well" in message


def test_errors_without_end(registry: Registry, connect: Connect) -> None:
    """The beginning is enough."""
    flood = Flood(status=403)
    registry.once("GET", "manifests", flood)
    with pytest.raises(RegistryError, match="does not allow access"):
        connect(waits=()).get_manifest("v1")
    assert flood.ended.wait(60)
    assert flood.sent < MOST


def test_a_token_without_end(registry: Registry, connect: Connect) -> None:
    """A megabyte of it is read, and then it is none."""
    registry.bearer, flood = True, Flood()
    registry.once("GET", "/token", flood)
    with pytest.raises(ShedError, match=f"the answer of {registry.address} is not valid JSON"):
        connect().has_blob(DIGEST)
    assert flood.ended.wait(60)
    assert flood.sent < MOST


def test_a_manifest_without_end(registry: Registry, connect: Connect) -> None:
    """Four megabytes of it."""
    flood = Flood()
    registry.once("GET", "manifests", flood)
    with pytest.raises(ShedError, match="is larger than 4 MiB"):
        connect().get_manifest("v1")
    assert flood.ended.wait(60)
    assert flood.sent < MOST


def test_documents(registry: Registry, tmp_path: Path) -> None:
    """What an index says of its platforms comes into an error, too."""
    entries = [
        Descriptor(media.MANIFEST, digest_bytes(b"%d" % number), 5, platform=Platform("linux", f"{EVIL}{number}"))
        for number in range(50)
    ]
    registry.add_manifest("v1", Index(tuple(entries)).encode(), media.INDEX)
    with pytest.raises(UsageError, match="holds no image for") as caught:
        pull_image(LayoutStore(tmp_path / "images"), f"{registry.address}/me/app:v1")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= 500


@pytest.mark.parametrize("place", ["http://\x1b[31m/x", "http://a\x9bb/", "http://a b/", "http://" + "x" * 9000 + "/"])
def test_places(registry: Registry, connect: Connect, place: str) -> None:
    """Where it leads is told as short."""
    registry.once("HEAD", "blobs", lambda handler: handler.answer(307, Location=place))
    with pytest.raises(ShedError) as caught:
        connect(waits=()).has_blob(DIGEST)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500
