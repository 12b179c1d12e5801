"""Digests, descriptors, manifests, indexes, configs: what is accepted, and what is refused with which words."""

import json
from typing import Any

import pytest

from shed.errors import DataError, UsageError
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import digest_bytes, parse_digest, short
from shed.oci.fields import MAX_JSON, decode_object
from shed.oci.manifest import MAX_LAYERS, ImageConfig, Index, Manifest

DIGEST = "sha256:" + "0123456789abcdef" * 4
BLOB = {"mediaType": media.LAYER_GZIP, "digest": DIGEST, "size": 10}
MANIFEST = {"schemaVersion": 2, "config": {"mediaType": media.CONFIG, "digest": DIGEST, "size": 2}, "layers": [BLOB]}
CONFIG = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}


def encoded(base: dict[str, Any], **changes: Any) -> bytes:
    """Return the document with members replaced; those set to ... are left out."""
    return json.dumps({key: value for key, value in (base | changes).items() if value is not ...}).encode()


def test_digest_of_bytes() -> None:
    """The digest of nothing is the well-known one."""
    empty = digest_bytes(b"")
    assert empty == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert parse_digest(empty) == empty
    assert short(empty) == "sha256:e3b0c44298fc"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        DIGEST[:-1],
        DIGEST + "0",
        DIGEST.upper(),
        "sha512:" + "0" * 128,
        DIGEST[7:],
        DIGEST + "\n",
        None,
        5,
    ],
)
def test_what_is_no_digest(text: object) -> None:
    """Anything but `sha256:` and 64 lower-case hex digits is refused, so that a digest is always a safe file name."""
    with pytest.raises(DataError, match="invalid digest"):
        parse_digest(text)


def test_manifest_round_trip() -> None:
    """What was parsed is written with two spaces and parses to the same; equal manifests give equal bytes."""
    manifest = Manifest.parse(encoded(MANIFEST, annotations={"a": "ü"}))
    data = manifest.encode()
    assert data.startswith(b'{\n  "schemaVersion": 2,\n  "mediaType": "application/vnd.oci.image.manifest.v1+json",\n')
    assert "ü".encode() in data
    assert Manifest.parse(data) == manifest
    assert Manifest.parse(data).encode() == data


def test_docker_media_types_are_read_as_oci() -> None:
    """Docker's schema 2 says the same in other words."""
    layer = BLOB | {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}
    config = MANIFEST["config"] | {"mediaType": "application/vnd.docker.container.image.v1+json"}  # type: ignore[operator]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = Manifest.parse(encoded(MANIFEST, mediaType=kind, layers=[layer], config=config))
    assert (manifest.layers[0].media_type, manifest.config.media_type) == (media.LAYER_GZIP, media.CONFIG)


BAD_MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"schemaVersion": 1}, "schemaVersion is 1"),
    ({"schemaVersion": ...}, "schemaVersion is None"),
    ({"mediaType": media.INDEX}, "not an image manifest"),
    ({"mediaType": 5}, "'mediaType' is not a string"),
    ({"manifests": []}, "also an index"),
    ({"config": ...}, "'config' is missing"),
    ({"config": []}, "config is not a JSON object"),
    ({"layers": ...}, "'layers' is not a list|'layers' is missing"),
    ({"layers": {}}, "'layers' is not a list"),
    ({"layers": [BLOB] * (MAX_LAYERS + 1)}, "has 513 items, at most 512"),
    ({"layers": [5]}, "layer 1 is not a JSON object"),
    ({"layers": [BLOB | {"digest": "sha256:abc"}]}, "invalid digest 'sha256:abc'"),
    ({"layers": [BLOB | {"digest": "sha256:" + "../" * 20 + "ab12"}]}, "invalid digest"),
    ({"layers": [BLOB | {"size": -1}]}, "'size' is not a whole number"),
    ({"layers": [BLOB | {"size": 1.5}]}, "'size' is not a whole number"),
    ({"layers": [BLOB | {"size": True}]}, "'size' is not a whole number"),
    ({"layers": [BLOB | {"size": 1 << 63}]}, "'size' is not a whole number"),
    ({"annotations": {"a": 1}}, "'annotations' is not an object of strings"),
    ({"annotations": []}, "'annotations' is not an object of strings"),
]


@pytest.mark.parametrize(("changes", "problem"), BAD_MANIFESTS, ids=[problem[:40] for _, problem in BAD_MANIFESTS])
def test_bad_manifests(changes: dict[str, Any], problem: str) -> None:
    """Every wrong type and value is one sentence."""
    with pytest.raises(DataError, match=problem):
        Manifest.parse(encoded(MANIFEST, **changes))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * (MAX_JSON + 1), "too large"),
    ],
    ids=["empty", "not UTF-8", "list", "deep", "long number", "large"],
)
def test_bad_json(data: bytes, problem: str) -> None:
    """Nothing that JSON can be gets through, or takes the process down."""
    with pytest.raises(DataError, match=f"x .*{problem}"):
        decode_object(data, "x")


def test_index() -> None:
    """Platforms and annotations survive a round trip; schemaVersion may be missing."""
    entry = {
        "mediaType": media.MANIFEST,
        "digest": DIGEST,
        "size": 5,
        "annotations": {"k": "v"},
        "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
    }
    index = Index.parse(json.dumps({"manifests": [entry]}).encode())
    assert index.manifests[0].platform == Platform("linux", "arm", "v7")
    assert Index.parse(index.encode()) == index
    with pytest.raises(DataError, match="also an image manifest"):
        Index.parse(json.dumps({"manifests": [], "layers": []}).encode())
    with pytest.raises(DataError, match="schemaVersion is 1"):
        Index.parse(b'{"schemaVersion": 1, "manifests": []}')
    wrong: Any
    for wrong in ({"architecture": 5}, {"architecture": "arm", "os.features": [5]}, []):
        with pytest.raises(DataError, match="platform"):
            Index.parse(json.dumps({"manifests": [entry | {"platform": wrong}]}).encode())


def test_config() -> None:
    """What matters is read; an image without layers may leave diff_ids out."""
    config = ImageConfig.parse(encoded(CONFIG, config={"User": "me"}))
    assert (str(config.platform), config.diff_ids, config.settings) == ("linux/amd64", (DIGEST,), {"User": "me"})
    assert ImageConfig.parse(encoded(CONFIG, rootfs={"type": "layers"})).diff_ids == ()
    assert ImageConfig.parse(encoded(CONFIG, config=None)).settings == {}
    for changes, problem in (
        ({"os": 5}, "'os' is not a string"),
        ({"rootfs": []}, "rootfs is not"),
        ({"config": 5}, "'config' is not an object"),
    ):
        with pytest.raises(DataError, match=problem):
            ImageConfig.parse(encoded(CONFIG, **changes))


def test_platforms() -> None:
    """`os/architecture[/variant]`; a variant counts only when one is asked for, and a lower one will do."""
    assert Platform.parse("linux/arm64").matches(Platform("linux", "arm64", "v8"))
    assert Platform.parse("linux/arm/v6").matches(Platform("linux", "arm", "v7"))
    assert not Platform.parse("linux/arm/v7").matches(Platform("linux", "arm", "v6"))
    assert not Platform.parse("linux/amd64/new").matches(Platform("linux", "amd64", "v2"))
    assert not Platform.parse("linux/amd64").matches(Platform("windows", "amd64"))
    for text in ("linux", "linux/", "/amd64", "a/b/c/d", ""):
        with pytest.raises(UsageError, match="invalid platform"):
            Platform.parse(text)


def test_descriptor_json_leaves_out_what_is_empty() -> None:
    """Only what is there is written."""
    assert Descriptor(media.LAYER, parse_digest(DIGEST), 1).to_json() == {
        "mediaType": media.LAYER,
        "digest": DIGEST,
        "size": 1,
    }
