"""A registry that leads into this machine or this network: by redirect, by a token server, by a name that changes its
address.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shed.errors import RegistryError
from shed.oci.content import BytesSource
from shed.oci.digest import digest_bytes
from shed.oci.registry import connections
from shed.oci.registry.client import Repository
from shed.oci.registry.connections import Connections
from shed.oci.registry.credentials import Credentials
from shed.oci.registry.reference import parse_reference
from support.registries.scripted_registry import Registry, scripted_registry

DIGEST = digest_bytes(b"blob")
ME = Credentials("me", "s3cret")
Connect = Callable[..., Repository]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of names below ``.test``, the next one first; the last one stays.

    A double for DNS, and for public addresses, of which this machine has none: 127.0.0.2 counts as one.
    """
    known: dict[str, list[str]] = {"registry.test": ["127.0.0.2"]}
    resolve = socket.getaddrinfo

    def double(host: str, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return resolve(host, *args, **kwargs)
        return resolve(known[host].pop(0) if len(known[host]) > 1 else known[host][0], *args, **kwargs)

    inside = connections._inside
    monkeypatch.setattr(socket, "getaddrinfo", double)
    monkeypatch.setattr(connections, "_inside", lambda address: 0 if address == "127.0.0.2" else inside(address))
    return known


@pytest.fixture
def outside(names: dict[str, list[str]]) -> Iterator[tuple[Registry, str]]:
    """A public registry, and what it is called."""
    with scripted_registry("127.0.0.2") as registry:
        yield registry, f"registry.test:{registry.address.rpartition(':')[2]}"


@pytest.fixture
def inside() -> Iterator[Registry]:
    """What listens on this machine, and should hear nothing."""
    with scripted_registry() as registry:
        registry.blobs[DIGEST] = b"blob"
        yield registry


def to(name: str, **options: Any) -> Repository:
    """Return the repository of a registry that may be spoken to in clear."""
    return Repository(parse_reference(f"{name}/me/app:v1"), insecure=True, waits=(), credentials=ME, **options)


def refused(call: Callable[[], object], host: str) -> None:
    """Check that nobody is led there, and that the error says how to allow it."""
    with pytest.raises(RegistryError, match=f"{host}") as caught:
        call()
    assert (caught.value.code, f"add {host} to limits.private_hosts" in (caught.value.hint or "")) == (
        "REGISTRY_LEADS_INSIDE",
        True,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "inside.test", "[::ffff:127.0.0.1]", "0.0.0.0"])
@pytest.mark.parametrize("how", ["redirect", "upload", "realm"])
def test_no_way_inside(
    outside: tuple[Registry, str], inside: Registry, names: dict[str, list[str]], host: str, how: str
) -> None:
    """By no way and under no name; nothing is sent there, and no credentials."""
    registry, name = outside
    names["inside.test"] = ["127.0.0.1"]
    place = f"http://{host}:{inside.address.rpartition(':')[2]}/v2/me/app/blobs/{DIGEST}"
    with to(name, push=how == "upload") as repository:
        if how == "realm":
            registry.once(
                "HEAD", "blobs", lambda handler: handler.answer(401, WWW_Authenticate=f'Bearer realm="{place}"')
            )
            with pytest.raises(RegistryError):
                repository.has_blob(DIGEST)
        elif how == "redirect":
            registry.once("HEAD", "blobs", lambda handler: handler.answer(307, Location=place))
            refused(lambda: repository.has_blob(DIGEST), host.strip("[]"))
        else:
            registry.location = lambda path: place
            refused(lambda: repository.upload_blob(DIGEST, BytesSource(b"blob")), host.strip("[]"))
    assert inside.seen == []


def test_a_name_that_changes_its_address(
    outside: tuple[Registry, str], inside: Registry, names: dict[str, list[str]]
) -> None:
    """The registry's own name, public at first, then this machine: what listens here on the same port hears nothing."""
    registry, name = outside
    names["registry.test"] = ["127.0.0.2", "127.0.0.1"]
    with scripted_registry("127.0.0.1", port=int(name.rpartition(":")[2])) as same_port, to(name) as repository:
        assert repository.has_blob(DIGEST) is None
        registry.once("HEAD", "blobs", lambda handler: handler.end())
        with pytest.raises(RegistryError, match=r"is now at this machine's address 127\.0\.0\.1"):
            repository._session.retried(lambda: [repository._session.close(), repository.has_blob(DIGEST)])
        assert same_port.seen == []


def test_what_the_user_allows(outside: tuple[Registry, str], inside: Registry, names: dict[str, list[str]]) -> None:
    """A host that is named in the configuration, and no other."""
    registry, name = outside
    names["storage.test"] = names["other.test"] = ["127.0.0.1"]
    port = inside.address.rpartition(":")[2]
    with to(name, private_hosts=("storage.test",)) as repository:
        registry.once(
            "HEAD",
            "blobs",
            lambda handler: handler.answer(307, Location=f"http://storage.test:{port}/v2/me/app/blobs/{DIGEST}"),
        )
        assert repository.has_blob(DIGEST) == 4
        registry.once(
            "HEAD",
            "blobs",
            lambda handler: handler.answer(307, Location=f"http://other.test:{port}/v2/me/app/blobs/{DIGEST}"),
        )
        refused(lambda: repository.has_blob(DIGEST), "other.test")
    assert ["authorization" in seen.headers for seen in inside.seen] == [False]


def test_a_registry_inside_may_lead_around_there(registry: Registry, connect: Connect, inside: Registry) -> None:
    """As one on this machine does whose storage is here, too."""
    registry.once(
        "HEAD",
        "blobs",
        lambda handler: handler.answer(307, Location=f"http://{inside.address}/v2/me/app/blobs/{DIGEST}"),
    )
    assert connect().has_blob(DIGEST) == 4


@pytest.mark.parametrize(
    ("registry", "address", "allowed"),
    [
        ("ghcr.io", "140.82.112.3", True), ("ghcr.io", "2606:50c0:8000::153", True), ("ghcr.io", "10.0.0.1", False),
        ("ghcr.io", "192.168.1.1", False), ("ghcr.io", "172.16.0.1", False), ("ghcr.io", "169.254.169.254", False),
        ("ghcr.io", "100.64.0.1", False), ("ghcr.io", "fd00::1", False), ("ghcr.io", "fe80::1%2", False),
        ("ghcr.io", "::1", False), ("ghcr.io", "::ffff:10.0.0.1", False), ("ghcr.io", "::", False),
        ("ghcr.io", "127.8.8.8", False), ("10.0.0.5:5000", "10.0.0.9", True), ("10.0.0.5:5000", "140.82.112.3", True),
        ("10.0.0.5:5000", "169.254.169.254", False), ("10.0.0.5:5000", "127.0.0.1", False),
        ("localhost:5000", "10.0.0.9", True), ("[::1]:5000", "127.0.0.1", True),
    ],
)  # fmt: skip
def test_where_a_registry_may_lead(registry: str, address: str, *, allowed: bool) -> None:
    """No further inside than it is itself."""
    places = Connections(registry)
    if allowed:
        places.check("storage.example", 443, address)
    else:
        with pytest.raises(RegistryError, match=r"leads to storage\.example"):
            places.check("storage.example", 443, address)


def test_a_literal_address_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, names: dict[str, list[str]]
) -> None:
    """The proxy resolves names, but an address that is written out is refused here."""
    monkeypatch.setenv("http_proxy", f"http://{registry.address}")
    registry.once(
        "HEAD", "blobs", lambda handler: handler.answer(307, Location=f"http://10.0.0.1/v2/me/app/blobs/{DIGEST}")
    )
    with to("registry.invalid:5000") as repository:
        refused(lambda: repository.has_blob(DIGEST), "10.0.0.1")
    assert len(registry.seen) == 1
