"""What people call an image in a registry: ``[host[:port]/]path[:tag][@digest]``, read as docker reads it.

The grammar is that of distribution/reference: https://github.com/distribution/reference/blob/main/reference.go.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from shed.errors import UsageError
from shed.oci.digest import Digest, is_digest

DOCKER_HUB = "docker.io"
_MAX_NAME = 255
_LABEL = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
_HOST = re.compile(rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX = re.compile(r"[0-9a-f]{64}")
_PREFIXES = ("shed-qemu-", "shed-vz-", "shed-fc-")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry.  Without `digest` there is always a `tag`."""

    registry: str
    """``host[:port]``, as written; Docker Hub is ``docker.io``."""
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest, else the tag."""
        return self.digest or self.tag

    @property
    def host(self) -> str:
        """Where the API is: ``host[:port]``."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry

    def image_name(self) -> str:
        """Return what an image pulled from here is called when nobody says otherwise."""
        last = self.repository.rpartition("/")[2]
        for prefix in _PREFIXES:
            last = last.removeprefix(prefix)
        return last or "default"


def parse_reference(text: str) -> Reference:
    """Return what `text` refers to; without tag and digest, the tag is ``latest``.

    Raises `UsageError` (INVALID_REFERENCE).
    """
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, "the digest after '@' is not `sha256:` and 64 lower-case hex digits")
    first, slash, rest = name.partition("/")
    if slash and (any(mark in first for mark in ".:") or first == "localhost" or first.lower() != first):
        registry = _registry(text, first)
    else:
        registry, rest = DOCKER_HUB, name
    path, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag!r} is not a tag: use letters, digits, '.', '_' and '-', 128 at most")
    if not _PATH.fullmatch(path) or len(path) > _MAX_NAME:
        wrong = "use lower-case letters and digits, and '.', '_' or '-' between them"
        raise _invalid(text, f"{path!r} is not a repository: {wrong}")
    if registry == DOCKER_HUB and "/" not in path:
        if _HEX.fullmatch(path):
            raise _invalid(text, "64 hex digits are a digest without `NAME@sha256:`")
        path = f"library/{path}"
    return Reference(registry, path, tag or ("" if at else "latest"), Digest(digest) if at else None)


def is_loopback(host: str) -> bool:
    """Tell whether `host`, without port, is this machine for certain: ``localhost`` or a loopback address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def split_host(authority: str) -> str:
    """Return ``host`` of ``host[:port]``; an IPv6 address keeps its brackets."""
    return authority if authority.endswith("]") else authority.rpartition(":")[0] or authority


def _registry(text: str, host: str) -> str:
    match = _HOST.fullmatch(host)
    if match is None:
        raise _invalid(text, f"{host!r} is not a registry: write host or host:port")
    if match["ipv6"]:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise _invalid(text, f"{host!r} is not an IPv6 address") from None
    if match["port"] and not 0 < int(match["port"]) < 65536:
        raise _invalid(text, f"{match['port']} is not a port")
    return DOCKER_HUB if host == "index.docker.io" else host


def _invalid(text: str, why: str) -> UsageError:
    return UsageError(
        f"invalid image reference {text!r}: {why}", code="INVALID_REFERENCE", hint="write it as ghcr.io/me/image:tag"
    )
