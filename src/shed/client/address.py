"""Where servers listen: ``unix:///path/of/socket``, ``http://host:port`` or ``ssh://[user@]host[:port]``.

On the way of every `shed exec`: imports nothing that takes time.  `shed.client.config` says which server is meant.
"""

from __future__ import annotations

from shed.config.paths import server_socket
from shed.errors import UsageError
from shed.names import LOCAL

DEFAULT_PORT = 8080
DEFAULT_SSH_PORT = 2222


class Address:
    """Where a server listens: `path` of a Unix socket, or else `host` and `port`.

    With `ssh`, the words for the user's own ssh that lead to `host`, it is the local server of that machine.  `local`
    is true for this user's own server, the one that the client may start.  `name` is what the configuration calls it,
    and None for one that is named by its URL.  `guess` says that nobody named it: the shed may be on another server.
    `token` is shown to a server that is reached over HTTP; None for the one that is kept for it, see
    `shed.client.tokens`.  `client` is what the program that asks calls itself, for the server's audit log; empty for
    the command line and the SDK.
    """

    __slots__ = ("client", "guess", "host", "local", "name", "path", "port", "ssh", "token")

    def __init__(
        self,
        *,
        path: str | None = None,
        host: str = "",
        port: int = 0,
        ssh: tuple[str, ...] | None = None,
        local: bool = False,
        name: str | None = None,
    ) -> None:
        self.path = path
        self.host = host
        self.port = port
        self.ssh = ssh
        self.local = local
        self.name = name
        self.client = ""
        self.guess = False
        self.token: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        if self.ssh is not None:
            user = self.ssh[-1].rpartition("@")[0]
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"ssh://{user + '@' if user else ''}{host}{f':{self.port}' if self.port else ''}"
        return f"http://{self.authority()}"

    def authority(self) -> str:
        """Return what goes into the Host header."""
        if self.path is not None or self.ssh is not None:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def local() -> Address:
    """Return the address of this user's own server on this machine."""
    return Address(path=server_socket(), local=True, name=LOCAL)


def parse(url: str) -> Address:
    """Return the address that `url` names.  Raises `UsageError`."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return Address(path=rest)
    if scheme in ("http", "ssh"):
        user, at, authority = rest.removesuffix("/").rpartition("@")
        host, port = _split(authority, DEFAULT_PORT if scheme == "http" else 0)
        if host and host.isascii() and host.isprintable() and port is not None and scheme == "http" and not at:
            return Address(host=host, port=port)
        if (
            host
            and port is not None
            and scheme == "ssh"
            and not (host + user).startswith("-")
            and bool(user) == bool(at)
        ):
            return Address(host=host, port=port, ssh=(*(("-p", str(port)) if port else ()), "--", f"{user}{at}{host}"))
    if scheme == "https":
        raise UsageError(f"{url}: shed servers of this version do not speak HTTPS", hint="use ssh://[user@]host")
    hint = "write unix:///path/of/socket, http://host:port or ssh://[user@]host[:port]"
    raise UsageError(f"{url!r} is not the address of a server", hint=hint)


def _split(authority: str, default: int) -> tuple[str, int | None]:
    """Return host and port of ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``; no host when it is none of them."""
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return "", None
        port = port[1:]
    else:
        host, _, port = authority.partition(":")
    if any(mark in host for mark in "/@ "):
        return "", None
    if not port:
        return host, default
    if port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return host, int(port)
    return host, None
