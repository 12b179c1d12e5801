"""The tokens of servers that are reached over HTTP: which one is shown to whom.

First match wins: the caller's own (`Address.token`), ``SHED_TOKEN``, ``~/.shed/tokens`` (written by `shed server add
--token-file`), and ``tokens`` in the folder of the local server's socket, where this user's own server says which
address its own token is for.  In both files each line is an address and a token.

A token goes to loopback addresses alone, as nothing keeps it secret on a network, and only to a port at which this user
or root listens: while a server or a tunnel is down, any other user of the machine could take its port and wait for the
token.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
import sys
from pathlib import Path

from shed.client.address import Address, parse
from shed.config.paths import run_dir
from shed.errors import ShedError, UsageError
from shed.fsutil import atomic_write, locked, storage_errors

_LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp; proc(5)."""


def default_tokens() -> Path:
    """Return the path of the user's file; it need not exist."""
    return Path("~/.shed/tokens").expanduser()


def token_for(address: Address) -> str | None:
    """Return the token to show to the server at `address`, None when nobody has one.

    Raises `UsageError`: UNSAFE_TOKEN when it would go where others can see it, or comes from a file that others can
    read.
    """
    token = (
        address.token
        or os.environ.get("SHED_TOKEN")
        or _kept(default_tokens(), address)
        or _kept(Path(run_dir(), "tokens"), address)
    )
    if not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"the token for {address} is none", hint="it reads: shed_…, without spaces or line ends")
    if not _is_loopback(address.host):
        hint = f"use ssh://{address.host}, or a tunnel of your own to that machine's loopback port"
        raise UsageError(
            f"a token is not sent to {address}: anybody on the way could read it", code="UNSAFE_TOKEN", hint=hint
        )
    stranger = _stranger_at(address)
    if stranger is not None:
        hint = "that server or tunnel is down, and somebody else has its port"
        raise UsageError(
            f"a token is not sent to {address}: user {stranger} listens there", code="UNSAFE_TOKEN", hint=hint
        )
    return token


def keep(path: Path, address: Address, token: str | None) -> None:
    """Write into the file `path` which token is for `address`; None: there is none any more.

    Raises `UsageError`, `StorageError`.
    """
    if token is None and not path.exists():
        return
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        kept = [line for line in _lines(path) if line and _key_of(line.split()[0]) != _key(address)]
        atomic_write(
            path, "".join(f"{line}\n" for line in [*kept, *([f"{address} {token}"] if token else [])]), mode=0o600
        )


def _kept(path: Path, address: Address) -> str | None:
    for line in _lines(path):
        url, _, token = line.partition(" ")
        if token and _key_of(url) == _key(address):
            return token.strip()
    return None


def _lines(path: Path) -> list[str]:
    try:
        with storage_errors(path), path.open(encoding="utf-8", errors="replace") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
                raise UsageError(
                    f"others can read or write {path}",
                    code="UNSAFE_TOKEN",
                    hint=f"chmod 600 {path}; and make new tokens",
                )
            return file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _key(address: Address) -> tuple[str, int]:
    return "localhost" if _is_loopback(address.host) else address.host.lower(), address.port


def _key_of(url: str) -> tuple[str, int] | None:
    with contextlib.suppress(ShedError):
        return _key(parse(url))
    return None


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or host == "::1" or (host.startswith("127.") and host.replace(".", "").isdigit())


def _stranger_at(address: Address) -> int | None:
    """Return the user who listens at a loopback address of this machine; None for this user, root, or nobody.

    Where there is no /proc (macOS), nobody can be asked.
    """
    meant = {
        ipaddress.ip_address(host)
        for host in (("127.0.0.1", "::1") if address.host.lower() == "localhost" else (address.host,))
    }
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                where, _, port = fields[1].rpartition(":")
                if fields[3] == _LISTEN and int(port, 16) == address.port and int(fields[7]) not in (os.geteuid(), 0):
                    listens = _ip_address(where)
                    if listens in meant or listens.is_unspecified:
                        return int(fields[7])
    return None


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address as /proc/net/tcp has it: words of 32 bits in this machine's byte order."""
    words = (int(text[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(text), 8))
    found = ipaddress.ip_address(b"".join(words))
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found
