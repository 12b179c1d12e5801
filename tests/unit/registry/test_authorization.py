"""Who is shown which credentials: challenges, tokens and their lives, and hosts that must never see any."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shed.errors import RegistryError, ShedError
from shed.oci import media
from shed.oci.content import BytesSource
from shed.oci.digest import digest_bytes
from shed.oci.registry import session
from shed.oci.registry.auth import Challenge, parse_challenges
from shed.oci.registry.client import Repository
from shed.oci.registry.credentials import Credentials
from shed.oci.registry.reference import parse_reference
from shed.oci.registry.transport import Transport
from support.registries.scripted_registry import Registry, scripted_registry

Connect = Callable[..., Repository]
ME = Credentials("me", "s3cret")
DIGEST = digest_bytes(b"blob")


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Basic realm="r"', [Challenge("basic", {"realm": "r"})]),
        (
            'Bearer realm="https://a/t",service="x, y",scope="repository:a:pull,push"',
            [Challenge("bearer", {"realm": "https://a/t", "service": "x, y", "scope": "repository:a:pull,push"})],
        ),
        (
            'Negotiate, Basic realm=r, Bearer realm="q\\"q" , error=x',
            [
                Challenge("negotiate", {}),
                Challenge("basic", {"realm": "r"}),
                Challenge("bearer", {"realm": 'q"q', "error": "x"}),
            ],
        ),
        ("", []),
        ('="', []),
        ('Bearer realm="open', [Challenge("bearer", {})]),
    ],
)  # fmt: skip
def test_challenges(header: str, challenges: list[Challenge]) -> None:
    """Several in one header, quoted and bare parameters, and nonsense."""
    assert parse_challenges(header)[: len(challenges) or 1] == challenges


def test_basic(registry: Registry, connect: Connect) -> None:
    """Credentials are sent when they are asked for, and from then on at once."""
    registry.basic = ("me", "s3cret")
    repository = connect(credentials=ME)
    assert repository.has_blob(DIGEST) is None
    assert repository.has_blob(DIGEST) is None
    assert ["authorization" in seen.headers for seen in registry.seen] == [False, True, True]


@pytest.mark.parametrize("credentials", [Credentials(), Credentials("me", "wrong")])
def test_basic_refused(registry: Registry, connect: Connect, waits: list[float], credentials: Credentials) -> None:
    """No or wrong credentials: one sentence and how to log in, no second try, and the password in neither."""
    registry.basic = ("me", "s3cret")
    with pytest.raises(RegistryError) as caught:
        connect(credentials=credentials).get_manifest("v1")
    error = caught.value
    assert error.message == f"{registry.address} wants credentials for manifest me/app:v1: authentication required"
    assert error.hint == f"log in: docker login {registry.address}, or skopeo login {registry.address}"
    assert error.code == "REGISTRY_UNAUTHORIZED"
    assert "wrong" not in f"{error.message}{error.hint}"
    assert waits == []


def test_bearer(registry: Registry, connect: Connect) -> None:
    """One token for many requests, of the scope that is needed; a push asks for more, a mount for the other repository
    too.
    """
    registry.bearer, registry.tokens_password = True, ("me", "s3cret")
    reader = connect(credentials=ME)
    for _ in range(3):
        assert reader.has_blob(DIGEST) is None
    (token,) = registry.requests("GET", "/token")
    assert token.query == {"service": ["scripted, really"], "scope": ["repository:me/app:pull"]}
    assert len(registry.seen) == 5
    registry.seen.clear()
    writer = connect(push=True, credentials=ME)
    writer.upload_blob(digest_bytes(b"x" * 5_000_000), BytesSource(b"x" * 5_000_000))
    writer.mount_blob(DIGEST, "you/app")
    asked = [seen.query["scope"] for seen in registry.requests("GET", "/token")]
    assert asked[0] == ["repository:me/app:pull,push", "repository:me/app:pull"]
    assert asked[1] == ["repository:me/app:pull,push", "repository:you/app:pull", "repository:me/app:pull"]
    assert len(asked) == 2


def test_a_token_without_credentials(registry: Registry, connect: Connect) -> None:
    """Public images need a token too, which anybody gets."""
    registry.bearer = True
    assert connect().has_blob(DIGEST) is None
    assert "authorization" not in registry.requests("GET", "/token")[0].headers


def test_a_token_that_is_revoked(registry: Registry, connect: Connect) -> None:
    """A 401 in the middle brings a new token, once."""
    registry.bearer = True
    repository = connect()
    repository.has_blob(DIGEST)
    registry.tokens.clear()
    assert repository.has_blob(DIGEST) is None
    assert len(registry.requests("GET", "/token")) == 2
    registry.once("GET", "/token", lambda handler: handler.answer(200, b'{"token": "never-good"}'))
    registry.tokens.clear()
    with pytest.raises(RegistryError, match="wants credentials"):
        repository.has_blob(DIGEST)


def test_a_token_that_expires(registry: Registry, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one is fetched before the old one is refused; its life ends a little early."""
    now = [1000.0]
    monkeypatch.setattr("shed.oci.registry.auth.time.monotonic", lambda: now[0])
    registry.bearer, registry.lifetime = True, 300
    repository = connect()
    for moment, tokens in ((0, 1), (269, 1), (271, 2), (500, 2)):
        now[0] = 1000.0 + moment
        repository.has_blob(DIGEST)
        assert len(registry.requests("GET", "/token")) == tokens


def test_an_identity_token(registry: Registry, connect: Connect) -> None:
    """It is exchanged by OAuth, and is in no address."""
    registry.bearer, registry.identity_token = True, "long-lived"
    assert connect(credentials=Credentials(identity_token="long-lived")).has_blob(DIGEST) is None
    (asked,) = registry.requests("POST", "/token")
    assert asked.query == {}
    with pytest.raises(RegistryError, match="wants credentials for a token for repository:me/app:pull: wrong password"):
        connect(credentials=Credentials(identity_token="stale")).has_blob(DIGEST)


def test_a_registry_token(registry: Registry, connect: Connect) -> None:
    """It is shown as it is, and not replaced when it is refused."""
    registry.bearer, registry.tokens = True, {"given": []}
    assert connect(credentials=Credentials(registry_token="given")).has_blob(DIGEST) is None
    assert len(registry.seen) == 1
    with pytest.raises(RegistryError, match="wants credentials"):
        connect(credentials=Credentials(registry_token="stale")).has_blob(DIGEST)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": ""}',
        b'{"token": "a\\nb: c"}',
        b'{"token": "%s"}' % (b"x" * 40_000),
    ],
)
def test_a_token_server_that_answers_nonsense(registry: Registry, connect: Connect, body: bytes) -> None:
    """One sentence that names it."""
    registry.bearer = True
    registry.once("GET", "/token", lambda handler: handler.answer(200, body))
    with pytest.raises(ShedError, match=registry.address):
        connect().has_blob(DIGEST)


def test_many_threads_share_one_token(registry: Registry, connect: Connect) -> None:
    """Whoever comes second uses what the first one got."""
    registry.bearer = True
    repository = connect()
    ready = threading.Barrier(8)

    def ask(_: int) -> int | None:
        ready.wait()
        return repository.has_blob(DIGEST)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [None] * 8
    assert len(registry.requests("GET", "/token")) == 1


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example.org/token",
        "http://localhost.example.com/token",
        "ftp://a/b",
        "",
        "token",
        "https://[::x/",
        "http://localhost:99999/",
    ],
)
def test_a_realm_that_must_not_see_credentials(registry: Registry, connect: Connect, realm: str) -> None:
    """A token server without encryption, unless it is this machine, and what is none: nothing is sent."""
    challenge = f'Bearer realm="{realm}"'
    registry.once("HEAD", "blobs", lambda handler: handler.answer(401, WWW_Authenticate=challenge))
    with pytest.raises(RegistryError, match=registry.address):
        connect(credentials=ME).has_blob(DIGEST)
    assert len(registry.seen) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_credentials_do_not_follow_a_redirect(registry: Registry, connect: Connect, method: str) -> None:
    """Neither along with it, nor when the other host asks for them."""
    registry.basic = ("me", "s3cret")
    with scripted_registry() as other:
        other.basic = ("me", "s3cret")
        place = f"http://{other.address}/v2/me/app/manifests/v1"
        registry.once(
            method,
            "manifests",
            lambda handler: not handler.authorized() or handler.answer(307, Location=place),
            times=2,
        )
        repository = connect(credentials=ME)
        with pytest.raises(RegistryError, match="wants credentials"):
            repository.get_manifest("v1") if method == "GET" else repository.head_manifest("v1")
        assert ["authorization" in seen.headers for seen in other.seen] == [False]
    assert registry.seen[-1].headers["authorization"].startswith("Basic ")


def test_a_host_redirected_to_names_no_token_server(registry: Registry, connect: Connect) -> None:
    """It could name its own, and be shown the credentials there."""
    with scripted_registry() as other:
        other.bearer = True
        place = f"http://{other.address}/v2/me/app/manifests/v1"
        registry.once("GET", "manifests", lambda handler: handler.answer(307, Location=place), times=2)
        with pytest.raises(RegistryError, match="wants credentials"):
            connect(credentials=ME).get_manifest("v1")
        assert [seen.path for seen in other.seen] == ["/v2/me/app/manifests/v1"]


def test_credentials_do_not_follow_an_upload(registry: Registry, connect: Connect) -> None:
    """A registry that has the bytes sent elsewhere does not have the credentials sent there."""
    registry.basic = ("me", "s3cret")
    with scripted_registry() as other:
        other.uploads["u"] = bytearray()
        registry.location = lambda path: f"http://{other.address}/v2/me/app/blobs/uploads/u"
        connect(push=True, credentials=ME).upload_blob(DIGEST, BytesSource(b"blob"))
        assert other.blobs == {DIGEST: b"blob"}
        assert ["authorization" in seen.headers for seen in other.seen] == [False]


@pytest.mark.parametrize(
    ("host", "insecure", "scheme"),
    [
        ("localhost:5000", True, "http"), ("127.0.0.1", True, "http"), ("registry.lan:5000", True, "http"),
        ("ghcr.io", False, "https"), ("localhost.example.com", False, "https"),
        ("127.0.0.1.example.com:5000", False, "https"),
    ],
)  # fmt: skip
def test_who_is_spoken_to_without_encryption(host: str, scheme: str, *, insecure: bool) -> None:
    """Who the user says so of; nobody whose name only looks like this machine.  None of them is asked, or may lead to
    this machine so.
    """
    transport = Transport(host, insecure=insecure)
    assert transport.base == f"{scheme}://{host}"
    assert transport.plain_allowed(host) == insecure
    assert transport.plain_allowed("[::1]:5000") is (host in ("localhost:5000", "127.0.0.1"))
    assert not transport.plain_allowed("other.example.org")


def test_docker_hub_has_another_address() -> None:
    """Its API is not where its name says."""
    found = session.Session(parse_reference("debian"), credentials=Credentials())
    assert found.base == "https://registry-1.docker.io/v2/library/debian"


def test_no_secret_is_logged_or_shown(registry: Registry, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """With all that any library logs, after success and failure, and in every `repr`."""
    caplog.set_level(logging.DEBUG)
    registry.bearer, registry.tokens_password = True, ("me", "s3cret")
    repository = connect(push=True, credentials=ME)
    repository.put_manifest("v1", b"{}", media.MANIFEST)
    registry.tokens_password = ("me", "changed")
    registry.tokens.clear()
    with pytest.raises(RegistryError) as caught:
        repository.has_blob(DIGEST)
    text = f"{caplog.text}{caught.value!r}{ME!r}{Credentials(identity_token='s3cret', registry_token='s3cret')!r}"
    assert "s3cret" not in text
    assert "token-" not in text
