"""How long a registry is waited for: slow honest ones are, those that only keep us waiting are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shed.errors import RegistryError, UnavailableError
from shed.oci.digest import Digest, digest_bytes
from shed.oci.registry import connections
from shed.oci.registry.client import Repository
from shed.oci.registry.connections import HEAD_TIME, LEAST_RATE, MAX_HEAD, WINDOW, Meter, SlowError
from shed.oci.registry.errors import MAX_TRIES, TransientError, retried
from support.registries.hostile_registry import MOST, Drip
from support.registries.scripted_registry import Handler, Registry

Connect = Callable[..., Repository]
DATA = bytes(3 << 20)
DIGEST = digest_bytes(DATA)
OK = b"HTTP/1.1 200 OK\r\n"
LONG = b"Content-Length: %d\r\n\r\n" % len(DATA)


class Sink:
    """Where a blob goes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, /) -> None:
        self.data += data

    def digest(self) -> Digest:
        return digest_bytes(bytes(self.data))


def test_a_slow_registry_that_sends_its_share() -> None:
    """For hours, in pieces as they come."""
    meter = Meter()
    meter.in_head = False
    for _ in range(10_000):
        meter.add(LEAST_RATE * 2, 1.9)
        meter.content += LEAST_RATE * 2


def test_one_that_sends_less() -> None:
    """Within two windows, whatever it sent before; the time that we spend otherwise does not count."""
    meter = Meter()
    meter.in_head = False
    meter.content = 1 << 30
    meter.add(1 << 30, WINDOW)
    waited = 0.0
    with pytest.raises(SlowError, match="less than 1 KiB per second"):
        while waited < 2 * WINDOW:
            meter.add(LEAST_RATE // 2, 1.0)
            waited += 1.0
    assert waited >= WINDOW - 1


def test_a_head_has_its_time() -> None:
    """All of it together, however its bytes come."""
    meter = Meter()
    meter.add(100, HEAD_TIME - 1)
    with pytest.raises(SlowError, match="does not end"):
        meter.add(1, 2)


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n" + b"X: y\r\n" * 90 + b"\r\n"),
        (OK, b"X-Header: " + b"x" * 60_000 + b"\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: y\r\n" * 1000),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
        (OK + b"X: ", b"x" * 60_000),
        (b"HTTP/1.1 200 ", b"x" * 60_000),
    ],
    ids=["interim", "interim with headers", "headers", "trailers", "chunks", "header", "status"],
)
def test_what_does_not_end_and_is_no_content(registry: Registry, connect: Connect, before: bytes, piece: bytes) -> None:
    """Interim answers, headers, trailers, frames: hung up on after a few megabytes, and told as what it is."""
    drip = Drip(before, piece)
    registry.once("GET", DIGEST, drip, times=9)
    with pytest.raises(UnavailableError, match=f"{registry.address}"):
        connect(waits=()).fetch_blob(DIGEST, Sink(), size=len(DATA))
    assert drip.sent < min(MOST, MAX_HEAD + (64 << 20))


@pytest.mark.parametrize("before", [OK + LONG, OK + b"X: ", b"HTTP/1.1 2"], ids=["body", "head", "status"])
def test_a_byte_now_and_then(
    registry: Registry, connect: Connect, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    """It keeps the connection alive, and is hung up on all the same; with a shorter window than the real one."""
    monkeypatch.setattr(connections, "WINDOW", 0.2)
    monkeypatch.setattr(connections, "HEAD_TIME", 0.2)
    registry.once("GET", DIGEST, Drip(before, b"x", 0.01), times=9)
    with pytest.raises(UnavailableError, match="was hung up on: ") as caught:
        connect(waits=(0.0,)).fetch_blob(DIGEST, Sink(), size=len(DATA))
    assert (caught.value.code, caught.value.hint) == ("REGISTRY_SLOW", "try again later: what is here is kept")
    assert len(registry.requests("GET", DIGEST)) == 2


def test_a_slow_one_is_taken_up_where_it_was(
    registry: Registry, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it became slow is not fetched again."""
    registry.blobs[DIGEST] = DATA
    half = len(DATA) - (1 << 20)
    real = connections.WINDOW
    monkeypatch.setattr(connections, "WINDOW", 0.2)

    def slow(handler: Handler) -> bool:
        done = Drip(OK + LONG + DATA[:half], b"x", 0.01)(handler)
        monkeypatch.setattr(connections, "WINDOW", real)
        return done

    registry.once("GET", DIGEST, slow)
    sink = Sink()
    assert connect().fetch_blob(DIGEST, sink, size=len(DATA)) == len(DATA)
    assert bytes(sink.data[:half]) == DATA[:half]
    assert registry.requests("GET", DIGEST)[-1].headers["range"] == f"bytes={half}-"


def test_a_head_that_is_too_long_is_told_once(registry: Registry, connect: Connect) -> None:
    """A challenge of megabytes is read as none; it takes no time."""
    challenge = "Basic " + " " * 60_000 + "!"
    registry.once("HEAD", "blobs", lambda handler: handler.answer(401, WWW_Authenticate=challenge))
    with pytest.raises(RegistryError, match="wants credentials"):
        connect().has_blob(DIGEST)


def test_tries_are_counted() -> None:
    """Who brings a megabyte with each try and then hangs up is not tried for ever."""
    brought = [0]

    def call() -> None:
        brought[0] += 2 << 20
        raise TransientError(UnavailableError("cut"))

    with pytest.raises(UnavailableError, match="cut"):
        retried(call, sleep=lambda seconds: None, done=lambda: brought[0])
    assert brought[0] == MAX_TRIES * (2 << 20)


def test_redirects_are_counted(registry: Registry, connect: Connect) -> None:
    """In a circle, or ever on."""
    registry.once("GET", "blobs", lambda handler: handler.answer(307, Location=handler.path + "x"), times=99)
    with pytest.raises(RegistryError, match="redirects again and again"):
        connect().fetch_blob(DIGEST, Sink(), size=len(DATA))
    assert len(registry.seen) < 10
