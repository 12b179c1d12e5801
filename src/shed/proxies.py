"""The HTTP proxy by which this host reaches the outside: how it is written, and what goes around it.

Its password is never part of a text that is shown: not of an error, and not of ``repr``.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes, urlsplit

_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""The first one that is there counts."""
_DEFAULT_PORT = 80
_MOST_HOST = 253


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that is spoken to in plain HTTP, as most are, and the hosts that are reached without it."""

    host: str
    port: int
    credentials: bytes = field(default=b"", repr=False)
    """``user:password``; empty when it asks for none."""
    no_proxy: tuple[str, ...] = ()
    """Names (with their subdomains), addresses, networks, ``*``; each perhaps with a port."""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Return the proxy that ``http://[user:password@]host:port`` names.  Raises `ValueError`, without the URL."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname or "", parts.port or _DEFAULT_PORT
        except ValueError:
            raise ValueError("it is not a URL: write http://[user:password@]host:port") from None
        if parts.scheme != "http":
            raise ValueError(f"only http:// proxies can be used, not {parts.scheme}://")
        if not host or len(host) > _MOST_HOST or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("it names no host: write http://[user:password@]host:port")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("it has more than a host and a port: write http://[user:password@]host:port")
        credentials = b""
        if parts.username is not None:
            credentials = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
            if any(byte < 32 or byte == 127 for byte in credentials):
                raise ValueError("its user or password has control characters")
        return cls(host, port, credentials)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Proxy | None:
        """Return the proxy that the variables of `environment` name, None without one.  Raises `ValueError`."""
        url = next((environment[name] for name in _VARIABLES if environment.get(name)), None)
        return None if url is None else cls.parse(url)

    def around(self, no_proxy: Iterable[str]) -> Proxy:
        """Return this proxy, for all but `no_proxy`."""
        return replace(self, no_proxy=tuple(entry.strip().lower() for entry in no_proxy if entry.strip()))

    @property
    def authorization(self) -> bytes:
        """The value of the header Proxy-Authorization (RFC 7617); empty without credentials."""
        return b"Basic " + base64.b64encode(self.credentials) if self.credentials else b""

    def serves(self, host: str, port: int | None) -> bool:
        """Say whether `port` of `host`, a name or an address, is reached through it; without one, whether any is."""
        return not any(_fits(entry, host, port) for entry in self.no_proxy)

    def to_json(self) -> dict[str, object]:
        """Return what `of_json` reads, with the credentials: for the relay alone."""
        return {
            "host": self.host,
            "port": self.port,
            "credentials": base64.b64encode(self.credentials).decode(),
            "no_proxy": list(self.no_proxy),
        }

    @classmethod
    def of_json(cls, document: Mapping[str, object]) -> Proxy:
        """Return the proxy that `to_json` described.  Raises `KeyError`, `TypeError`, `ValueError` for nonsense."""
        host, port, around = document["host"], document["port"], document["no_proxy"]
        if not isinstance(host, str) or not isinstance(port, int) or not isinstance(around, list):
            raise TypeError("a proxy that is none")
        return cls(host, port, base64.b64decode(str(document["credentials"])), tuple(map(str, around)))

    def __str__(self) -> str:
        """Return where it is, without its credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def no_proxy(environment: Mapping[str, str]) -> list[str]:
    """Return what the variables of `environment` have reached without a proxy."""
    return next((value for name in ("no_proxy", "NO_PROXY") if (value := environment.get(name))), "").split(",")


def _fits(entry: str, host: str, port: int | None) -> bool:
    """Say whether `entry`, one of those that are reached without the proxy, is about `port` of `host`."""
    if entry == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            pass
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdigit() and "/" not in entry:
        return str(port) == digits and _fits(name.strip("[]"), host, None)
    domain = entry.removeprefix("*").removeprefix(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))
