"""Which server to talk to.

First match wins: what the caller names (``-s``), ``SHED_SERVER``, ``default_server`` of the client's configuration, the local server.
A server is named ``unix:///path/of/socket``, ``http://host:port``, or as the configuration calls it.
On the way of every `shed exec`: imports nothing that takes time.
"""

from __future__ import annotations

import os

from shed.config.rundir import server_socket
from shed.errors import UsageError

DEFAULT_PORT = 8080


class Address:
    """Where a server listens: `path` of a Unix socket, or else `host` and `port`.

    `local` is true for this user's own server, the one that the client may start.
    """

    __slots__ = ("host", "local", "path", "port")

    def __init__(self, *, path: str | None = None, host: str = "", port: int = 0, local: bool = False) -> None:
        self.path = path
        self.host = host
        self.port = port
        self.local = local

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"http://{self.authority()}"

    def authority(self) -> str:
        """Return what goes into the Host header."""
        if self.path is not None:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def resolve(server: str | None = None, *, config: str | None = None) -> Address:
    """Return the address to use when the user named `server`; `config` is the client's configuration file, if one was named.

    Raises `UsageError` for a name or URL that cannot be used.
    """
    named = server or os.environ.get("SHED_SERVER")
    if named is not None and "://" in named:
        return parse(named)
    if named is not None or config is not None or os.path.exists(default_config()):  # noqa: PTH110  no pathlib here
        from shed.client.config import server_url  # noqa: PLC0415  YAML, only for those who have a file

        url = server_url(named, config)
        if url is not None:
            return parse(url)
    return local()


def local() -> Address:
    """Return the address of this user's own server on this machine."""
    return Address(path=server_socket(), local=True)


def default_config() -> str:
    """Return the path of the client's configuration file; it need not exist."""
    return os.path.expanduser("~/.shed/config.yaml")  # noqa: PTH111  no pathlib here


def parse(url: str) -> Address:
    """Return the address that `url` names.  Raises `UsageError`."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return Address(path=rest)
    if scheme == "http":
        host, port = _split(rest.removesuffix("/"))
        if host and port is not None:
            return Address(host=host, port=port)
    if scheme == "https":
        raise UsageError(f"{url}: shed servers of this version do not speak HTTPS", hint="use http:// through an SSH tunnel")
    raise UsageError(f"{url!r} is not the address of a server", hint="write unix:///path/of/socket or http://host:port")


def _split(authority: str) -> tuple[str, int | None]:
    """Return host and port of ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``; no host when it is none of them."""
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return "", None
        port = port[1:]
    else:
        host, _, port = authority.partition(":")
    if "/" in host or "@" in host or " " in host:
        return "", None
    if not port:
        return host, DEFAULT_PORT
    if port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return host, int(port)
    return host, None
