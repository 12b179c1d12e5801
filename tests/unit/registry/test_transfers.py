"""Blobs and manifests against a registry that fails, cuts and lies in scripted ways."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.budget import Reserve
from shed.errors import DataError, NotFoundError, RegistryError, ShedError, StorageError, UnavailableError
from shed.oci import media
from shed.oci.content import BytesSource
from shed.oci.digest import Digest, digest_bytes
from shed.oci.registry.client import MAX_MANIFEST, Repository
from shed.oci.registry.credentials import Credentials
from shed.oci.registry.reference import parse_reference
from shed.oci.staging import StagedBlob
from support.registries.scripted_registry import Fault, Handler, Registry, scripted_registry

Connect = Callable[..., Repository]
BLOB = os.urandom(5_000_000)
DIGEST = digest_bytes(BLOB)


def status(code: int, **headers: str) -> Fault:
    """Answer with an error."""
    return lambda handler: handler.error(code, "SCRIPTED", "as the test\nwants it", **headers)


def cut_after(count: int) -> Fault:
    """Send the head of the blob, `count` bytes of it, and cut the connection."""

    def fault(handler: Handler) -> bool:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(BLOB) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}")
        handler.end_headers()
        handler.wfile.write(BLOB[start : start + count])
        return handler.end()

    return fault


def fetch(repository: Repository, folder: Path, digest: Digest = DIGEST, size: int | None = len(BLOB)) -> bytes:
    """Return a blob that was fetched to a file."""
    counted: list[int] = []
    with StagedBlob.create(folder, Reserve(folder).check) as blob:
        assert repository.fetch_blob(digest, blob, size=size, on_bytes=counted.append) == sum(counted)
        blob.content()
        return blob.path.read_bytes()


@pytest.mark.parametrize("size", [len(BLOB), None])
def test_a_blob(registry: Registry, connect: Connect, tmp_path: Path, size: int | None) -> None:
    """Fetched whether or not its size is known; asked for; not there."""
    repository = connect()
    registry.add(BLOB)
    assert fetch(repository, tmp_path, size=size) == BLOB
    assert repository.has_blob(DIGEST) == len(BLOB)
    assert repository.has_blob(digest_bytes(b"other")) is None
    with pytest.raises(NotFoundError, match=r"has no blob sha256:.* of me/app: blob unknown to registry"):
        fetch(repository, tmp_path, digest_bytes(b"other"))


@pytest.mark.parametrize(
    ("fault", "waited"),
    [
        (status(500), [1]), (status(503), [1]), (status(429, Retry_After="7"), [7]),
        (status(429, Retry_After="9999"), [60]), (status(429, Retry_After="soon"), [1]), (Handler.reset, [1]),
        (Handler.end, [1]), (cut_after(0), [1]),
    ],
)  # fmt: skip
def test_faults_that_pass(
    registry: Registry, connect: Connect, tmp_path: Path, waits: list[float], fault: Fault, waited: list[float]
) -> None:
    """A server error, too many requests, a reset, an end without an answer: the next try has it, after the wait that is
    due.
    """
    registry.add(BLOB)
    registry.once("GET", DIGEST, fault)
    assert fetch(connect(), tmp_path) == BLOB
    assert waits == waited


def test_retry_after_as_a_date(registry: Registry, connect: Connect, waits: list[float]) -> None:
    """The other form that HTTP has for it."""
    registry.once("HEAD", DIGEST, status(503, Retry_After=email.utils.formatdate(time.time() + 55, usegmt=True)))
    assert connect().has_blob(DIGEST) is None
    assert 25 < waits[0] <= 55


@pytest.mark.parametrize(
    ("code", "kind", "tries"),
    [
        (400, RegistryError, 1),
        (403, RegistryError, 1),
        (404, NotFoundError, 1),
        (429, UnavailableError, 3),
        (502, UnavailableError, 3),
    ],
)
def test_what_is_refused(
    registry: Registry, connect: Connect, waits: list[float], code: int, kind: type[ShedError], tries: int
) -> None:
    """What the client got wrong is told at once, the rest after three tries; one sentence with what the registry says,
    and a hint.
    """
    registry.once("GET", "manifests", status(code), times=9)
    with pytest.raises(kind) as caught:
        connect().get_manifest("v1")
    assert len(registry.seen) == tries
    assert waits == [1, 4][: tries - 1]
    assert caught.value.message.endswith(": as the test wants it")
    assert registry.address in caught.value.message
    assert caught.value.hint


def test_nobody_answers(connect: Connect, waits: list[float]) -> None:
    """Three tries; then the host is named, and why."""
    repository = Repository(parse_reference("127.0.0.1:1/a"), sleep=waits.append)
    with pytest.raises(UnavailableError, match=r"cannot reach 127\.0\.0\.1:1: connection refused"):
        repository.has_blob(DIGEST)
    assert waits == [1, 4]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_blob_that_is_cut(
    registry: Registry, connect: Connect, tmp_path: Path, waits: list[float], *, ranges: bool
) -> None:
    """It is taken up where it was cut, again and again while it gets on; a registry without ranges sends it anew."""
    registry.add(BLOB)
    registry.ranges = ranges
    for count in (3_000_000, *([1_500_000, 10] if ranges else [])):
        registry.once("GET", DIGEST, cut_after(count))
    assert fetch(connect(), tmp_path) == BLOB
    asked = [seen.headers.get("range") for seen in registry.requests("GET")]
    assert asked == [None, "bytes=3000000-", *(["bytes=4500000-", "bytes=4500010-"] if ranges else [])]
    assert waits == ([1, 1, 4] if ranges else [1])


def test_a_blob_that_never_gets_on(registry: Registry, connect: Connect, tmp_path: Path, waits: list[float]) -> None:
    """Three tries without a megabyte more are enough, and no file is left."""
    registry.add(BLOB)
    registry.once("GET", DIGEST, cut_after(10), times=9)
    with pytest.raises(UnavailableError, match="cannot reach"):
        fetch(connect(), tmp_path)
    assert waits == [1, 4]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "size", "code"),
    [
        (lambda handler: handler.answer(200, BLOB[:-1] + bytes([BLOB[-1] ^ 1])), len(BLOB), "DIGEST_MISMATCH"),
        (lambda handler: handler.answer(200, b"short"), None, "DIGEST_MISMATCH"),
        (lambda handler: handler.answer(200, b"short"), len(BLOB), "SIZE_MISMATCH"),
        (lambda handler: handler.answer(200, BLOB + b"x"), len(BLOB), "SIZE_MISMATCH"),
        (
            lambda handler: bool(handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + BLOB + b"x")) and handler.end(),
            len(BLOB),
            "SIZE_MISMATCH",
        ),
        (
            lambda handler: handler.answer(206, BLOB, Content_Range=f"bytes 0-4999999/{len(BLOB)}"),
            len(BLOB),
            "REGISTRY_ERROR",
        ),
    ],
    ids=["digest", "digest-of-unknown-size", "too-short", "too-long", "without-length", "unasked-range"],
)
def test_a_registry_that_lies(
    registry: Registry, connect: Connect, tmp_path: Path, waits: list[float], fault: Fault, size: int | None, code: str
) -> None:
    """Told at once, not tried again."""
    registry.add(BLOB)
    registry.once("GET", DIGEST, fault)
    with pytest.raises(ShedError) as caught:
        fetch(connect(), tmp_path, size=size)
    assert (caught.value.code, waits, len(registry.seen)) == (code, [], 1)


@pytest.mark.parametrize(
    "content_range", ["bytes 2999999-4999999/5000000", "bytes 3000000-4999999/6000000", "items 1-2/3", ""]
)
def test_a_range_that_was_not_asked_for(
    registry: Registry, connect: Connect, tmp_path: Path, content_range: str
) -> None:
    """A cut blob is not continued with the wrong part."""
    registry.once("GET", DIGEST, cut_after(3_000_000))
    registry.once("GET", DIGEST, lambda handler: handler.answer(206, BLOB[3_000_000:], Content_Range=content_range))
    with pytest.raises(RegistryError, match="asked for the bytes from 3000000"):
        fetch(connect(), tmp_path)


def test_manifests(registry: Registry, connect: Connect) -> None:
    """Stored by digest and by tag, and got back byte for byte with their media type."""
    data = b'{"schemaVersion": 2}'
    repository = connect(push=True)
    digest = repository.put_manifest(digest_bytes(data), data, media.MANIFEST)
    assert repository.put_manifest("v1", data, media.MANIFEST) == digest
    found = repository.get_manifest("v1")
    assert (found.data, found.media_type, found.digest) == (data, media.MANIFEST, digest)
    head = repository.head_manifest(digest)
    assert head
    assert (head.digest, head.size, head.media_type) == (digest, len(data), media.MANIFEST)
    assert repository.head_manifest("v2") is None
    assert media.DOCKER_INDEX in registry.requests("GET")[0].headers["accept"]


def test_manifests_that_lie(registry: Registry, connect: Connect) -> None:
    """Other bytes than the digest, or the registry's own header, promises; more than a manifest may have."""
    repository = connect()
    registry.manifests[DIGEST] = media.MANIFEST, b"{}"
    with pytest.raises(DataError, match="digest mismatch"):
        repository.get_manifest(DIGEST)
    registry.once("GET", "v1", lambda handler: handler.answer(200, b"{}", Docker_Content_Digest=DIGEST))
    with pytest.raises(DataError, match="digest mismatch"):
        repository.get_manifest("v1")
    registry.add_manifest("v1", b" " * (MAX_MANIFEST + 1), media.MANIFEST)
    with pytest.raises(DataError, match="larger than 4 MiB"):
        repository.get_manifest("v1")


LOCATIONS: dict[str, Callable[[Registry], Callable[[str], str]]] = {
    "relative": lambda registry: lambda path: path,
    "absolute": lambda registry: lambda path: f"http://{registry.address}{path}",
    "without-query": lambda registry: lambda path: path.partition("?")[0],
}


@pytest.mark.parametrize("where", LOCATIONS)
@pytest.mark.parametrize("data", [b"small", BLOB, b""], ids=["small", "large", "empty"])
def test_an_upload(registry: Registry, connect: Connect, where: str, data: bytes) -> None:
    """One stream, or for a small blob a single request; wherever the registry says that it goes on."""
    registry.location = LOCATIONS[where](registry)
    counted: list[int] = []
    connect(push=True).upload_blob(digest_bytes(data), BytesSource(data), on_bytes=counted.append)
    assert registry.blobs == {digest_bytes(data): data}
    assert sum(counted) == len(data)
    assert [seen.method for seen in registry.seen] == (["POST", "PATCH", "PUT"] if data is BLOB else ["POST", "PUT"])
    if where != "without-query":
        assert all(seen.query["state"] == ["x/y"] for seen in registry.seen[1:])


def hold(count: int) -> Fault:
    """Keep `count` bytes of what is sent, and cut the connection."""

    def fault(handler: Handler) -> bool:
        next(iter(reversed(handler.registry.uploads.values()))).extend(handler.body(count))
        return handler.reset()

    return fault


def test_an_upload_that_is_cut(registry: Registry, connect: Connect, waits: list[float]) -> None:
    """The registry is asked what it has, and gets the rest in pieces, which may be cut too."""
    big = os.urandom(20_000_000)
    registry.largest_piece = 4 << 20
    registry.once("PATCH", "uploads", hold(10_000_000))
    registry.once("PATCH", "uploads", hold(3_000_000))
    counted: list[int] = []
    connect(push=True).upload_blob(digest_bytes(big), BytesSource(big), on_bytes=counted.append)
    assert registry.blobs[digest_bytes(big)] == big
    assert sum(counted) == len(big)
    assert len(registry.requests("POST")) == 1
    ranges = [seen.headers.get("content-range") for seen in registry.requests("PATCH")]
    assert ranges == [None, "10000000-14194303", "13000000-17194303", "17194304-19999999"]
    assert waits == [1, 1]


@pytest.mark.parametrize(
    "fault",
    [status(404), status(405), lambda handler: handler.answer(204, Range="0-99999999")],
    ids=["gone", "cannot-say", "nonsense"],
)
def test_an_upload_that_cannot_be_taken_up(registry: Registry, connect: Connect, fault: Fault) -> None:
    """When the registry has lost it, it begins anew."""
    registry.once("PATCH", "uploads", hold(1_000_000))
    registry.once("GET", "uploads", fault)
    connect(push=True).upload_blob(DIGEST, BytesSource(BLOB))
    assert registry.blobs[DIGEST] == BLOB
    assert len(registry.requests("POST")) == 2


def test_a_registry_that_wants_pieces(registry: Registry, connect: Connect) -> None:
    """A refused stream is sent in pieces of 4 MiB, or larger ones if the registry says so."""
    registry.streams = False
    connect(push=True).upload_blob(DIGEST, BytesSource(BLOB))
    assert registry.blobs[DIGEST] == BLOB
    assert [int(seen.headers["content-length"]) for seen in registry.requests("PATCH")] == [
        len(BLOB),
        4 << 20,
        len(BLOB) - (4 << 20),
    ]
    registry.headers_of_upload = {"OCI-Chunk-Min-Length": "4500000"}
    registry.seen.clear()
    connect(push=True).upload_blob(DIGEST, BytesSource(BLOB))
    assert [int(seen.headers["content-length"]) for seen in registry.requests("PATCH")][1:] == [4_500_000, 500_000]


def test_a_piece_is_the_whole(registry: Registry, connect: Connect) -> None:
    """A blob that fits into one piece is sent as a piece where streams are refused."""
    registry.streams = False
    data = BLOB[:2_000_000]
    connect(push=True).upload_blob(digest_bytes(data), BytesSource(data))
    assert [seen.headers.get("content-range") for seen in registry.requests("PATCH")] == [None, "0-1999999"]


def test_a_piece_of_which_only_a_part_is_taken(registry: Registry, connect: Connect) -> None:
    """The registry's word counts: what it did not take is sent again."""

    def part(handler: Handler) -> bool:
        (name, upload) = next(iter(handler.registry.uploads.items()))
        upload += handler.body()[:2_000_000]
        handler.place(202, "me/app", name, Range=f"0-{len(upload) - 1}")
        return True

    registry.once("PATCH", "uploads", part)
    connect(push=True).upload_blob(DIGEST, BytesSource(BLOB))
    assert registry.blobs[DIGEST] == BLOB


def test_the_last_answer_of_an_upload_is_lost(registry: Registry, connect: Connect) -> None:
    """The registry has the blob already and knows nothing of the upload any more: it is sent again, and that is all."""

    def lose(handler: Handler) -> bool:
        digest = handler.request_seen.query["digest"][0]
        handler.registry.blobs[digest] = bytes(handler.registry.uploads.popitem()[1])
        return handler.reset()

    registry.once("PUT", "uploads", lose)
    connect(push=True).upload_blob(DIGEST, BytesSource(BLOB))
    assert registry.blobs[DIGEST] == BLOB


def test_a_wrong_blob_is_refused_by_the_registry(registry: Registry, connect: Connect) -> None:
    """Its sentence is shown."""
    with pytest.raises(RegistryError, match="provided digest did not match uploaded content"):
        connect(push=True).upload_blob(DIGEST, BytesSource(b"something else"))


def test_a_source_that_cannot_be_read(registry: Registry, connect: Connect) -> None:
    """A file that was cut is the disk's fault, not the network's."""

    class Cut(BytesSource):
        size = 0

    source = Cut(BLOB[:100])
    source.size = len(BLOB)
    with pytest.raises(StorageError, match="was cut while it was read"):
        connect(push=True).upload_blob(DIGEST, source)


def test_mounts(registry: Registry, connect: Connect) -> None:
    """Taken over from another repository; when the registry begins an upload instead, that is given up; a refusal is a
    no.
    """
    repository = connect(push=True)
    registry.mountable = {DIGEST}
    assert repository.mount_blob(DIGEST, "you/app")
    assert registry.seen[0].query == {"mount": [DIGEST], "from": ["you/app"]}
    assert not repository.mount_blob(digest_bytes(b"x"), "you/app")
    assert registry.uploads == {}
    registry.once("POST", "uploads", status(403))
    assert not repository.mount_blob(DIGEST, "you/app")


def test_a_redirected_blob(registry: Registry, connect: Connect, tmp_path: Path) -> None:
    """To another host, which sees no credentials; a cut there is taken up by asking the registry again."""
    registry.basic = ("me", "secret")
    with scripted_registry() as store:
        store.add(BLOB)
        store.once("GET", "blobs", cut_after(2_000_000))
        place = f"http://{store.address}/v2/cdn/blobs/{DIGEST}?signature=1"
        registry.once(
            "GET", DIGEST, lambda handler: not handler.authorized() or handler.answer(307, Location=place), times=4
        )
        assert fetch(connect(credentials=Credentials("me", "secret")), tmp_path) == BLOB
        assert [seen.headers.get("authorization") for seen in store.seen] == [None, None]
        assert store.seen[1].headers["range"] == "bytes=2000000-"
    assert registry.seen[-1].headers["authorization"].startswith("Basic ")


def test_redirects_without_end(registry: Registry, connect: Connect, tmp_path: Path) -> None:
    """Eight are enough."""
    registry.once("GET", DIGEST, lambda handler: handler.answer(302, Location=handler.path), times=99)
    with pytest.raises(RegistryError, match="redirects again and again"):
        fetch(connect(), tmp_path)


@pytest.mark.parametrize(
    "location",
    ["ftp://example.org/x", "file:///etc/passwd", "http://[::x/", "http://a:99999/", "http://a b/", "https:///x"],
)
def test_redirects_to_what_is_no_web_address(
    registry: Registry, connect: Connect, tmp_path: Path, location: str
) -> None:
    """Only HTTP is followed."""
    registry.once("GET", DIGEST, lambda handler: handler.answer(302, Location=location))
    with pytest.raises(RegistryError, match="no web address"):
        fetch(connect(), tmp_path)
