"""References read as docker reads them, and which hosts are this machine."""

import pytest

from shed.errors import UsageError
from shed.oci.registry.reference import is_loopback, parse_reference, split_host

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("debian", "docker.io", "library/debian", "latest", None),
        ("me/app:v1", "docker.io", "me/app", "v1", None),
        ("docker.io/debian", "docker.io", "library/debian", "latest", None),
        ("index.docker.io/me/app", "docker.io", "me/app", "latest", None),
        ("ghcr.io/me/app@" + DIGEST, "ghcr.io", "me/app", "", DIGEST),
        ("ghcr.io/me/app:v1@" + DIGEST, "ghcr.io", "me/app", "v1", DIGEST),
        ("localhost/app", "localhost", "app", "latest", None),
        ("localhost:5000/a/b/c:X_y-1.2", "localhost:5000", "a/b/c", "X_y-1.2", None),
        ("Registry/app", "Registry", "app", "latest", None),
        ("[::1]:5000/app:1", "[::1]:5000", "app", "1", None),
        ("[2001:db8::1]/app", "[2001:db8::1]", "app", "latest", None),
        ("a.b/x__y/z---q.r_s", "a.b", "x__y/z---q.r_s", "latest", None),
    ],
)
def test_what_a_reference_means(text: str, registry: str, repository: str, tag: str, digest: str | None) -> None:
    """Registry, repository, tag and digest; written out in full it means the same."""
    found = parse_reference(text)
    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "", ":v1", "a:", "a@sha256:12", "a@", "UPPER", "ghcr.io/Me/app", "ghcr.io/", "ghcr.io//a", "/a", "a/", "a//b",
        "a b", "a:v 1", "-a", "a-", "a..b", "a___b", "ghcr.io/a:" + "x" * 129, "x/" + "a" * 254, "f" * 64,
        "https://ghcr.io/a", "host:port/a", "host:0/a", "host:65536/a", "[::1/a", "[xyz]:1/a", "[12:12]/a",
        "-host.io/a", "a\n", "ghcr.io/a:v1\n", "../a", "ghcr.io/../a", "ghcr.io/a@" + DIGEST.upper(),
    ],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    """One sentence that shows the text, and a hint."""
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert caught.value.code == "INVALID_REFERENCE"
    assert repr(text) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ghcr.io/me/shed-fc-base:v1", "base"),
        ("ghcr.io/me/shed-vz-full@" + DIGEST, "full"),
        ("debian:12", "debian"),
        ("a.b/x/y", "y"),
    ],
)
def test_the_name_of_a_pulled_image(text: str, name: str) -> None:
    """The last part of the path, without what the published images start with."""
    assert parse_reference(text).image_name() == name


@pytest.mark.parametrize(
    ("authority", "loopback"),
    [
        ("localhost", True), ("LOCALHOST:5000", True), ("127.0.0.1:5000", True), ("127.9.9.9", True),
        ("[::1]:5000", True), ("[::1]", True), ("localhost.example.com", False), ("localhost.example.com:5000", False),
        ("127.0.0.1.example.com", False), ("127.1", False), ("10.0.0.1", False), ("[::2]", False), ("0.0.0.0", False),
        ("localhostx", False),
    ],
)  # fmt: skip
def test_which_hosts_are_this_machine(authority: str, loopback: bool) -> None:
    """Only these are spoken to without encryption; a name that starts like them is not one of them."""
    assert is_loopback(split_host(authority)) is loopback
