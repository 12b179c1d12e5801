"""Values of settings.

Each function converts a value that YAML has read into one that a program uses, or raises `ValueError` or `UsageError`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from shed.egress.rules.policy import Profile
from shed.egress.rules.profiles import BUILT_IN
from shed.errors import DataError, UsageError
from shed.names import MAX_IDLE, MIN_IDLE
from shed.proxies import Proxy
from shed.sizes import format_size, parse_size
from shed.sshkeys import PublicKey

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_PROFILE = re.compile(r"[a-z][a-z0-9-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_MOST_URL = 4096
Convert = Callable[[object], object]


def text(value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be text")
    return value


def choice(*choices: str) -> Convert:
    """One of `choices`."""

    def convert(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return convert


def switch(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def digests(value: object) -> tuple[str, ...]:
    """A list of digests."""
    if not isinstance(value, list) or not all(isinstance(item, str) and _DIGEST.fullmatch(item) for item in value):
        raise ValueError("must be a list of digests, each sha256: and 64 hex digits")
    return tuple(value)


def profiles(value: object) -> tuple[str, ...]:
    """A list of names of egress profiles."""
    if not isinstance(value, list) or not all(isinstance(name, str) and _PROFILE.fullmatch(name) for name in value):
        raise ValueError("must be a list of names of egress profiles")
    return tuple(dict.fromkeys(value))


def proxy(value: object) -> Proxy | Literal["environment"] | None:
    """The URL of a proxy without credentials, or the absolute path of a private file with one; none: no proxy."""
    if value == "environment":
        return "environment"
    if value == "none":
        return None
    url = text(value)
    if url.startswith("/"):
        try:
            with open(url, encoding="utf-8") as file:
                others, url = os.fstat(file.fileno()).st_mode & 0o077, file.read(_MOST_URL).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{value} cannot be read: {getattr(error, 'strerror', 'it is not text')}") from None
        if others:
            raise ValueError(f"{value} can be read by others: chmod 600 {value}")
        return Proxy.parse(url)
    found = Proxy.parse(url)
    if found.credentials:
        raise ValueError("a password does not belong here: write the URL into a file of mode 0600, and name that file")
    return found


def words(value: object) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def variables(value: object) -> dict[str, str]:
    """Environment variables: texts by name."""
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and _VARIABLE.fullmatch(name) and isinstance(text, str) and "\0" not in text
        for name, text in value.items()
    ):
        raise ValueError("must hold names of environment variables, each with a text")
    return dict(value)


def files(value: object) -> tuple[Path, ...]:
    """A list of absolute paths of files."""
    if not isinstance(value, list) or not all(isinstance(path, str) and path.startswith("/") for path in value):
        raise ValueError("must be a list of absolute paths")
    return tuple(Path(path) for path in value)


def number(least: int, most: int) -> Convert:
    """An integer from `least` to `most`."""

    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return convert


def factor(least: int, most: int) -> Convert:
    """A number from `least` to `most`."""

    def convert(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a number from {least} to {most}")
        return float(value)

    return convert


def size(least: int, most: int) -> Convert:
    """A size from `least` to `most` bytes, such as ``512M``."""

    def convert(value: object) -> int:
        found = parse_size(str(value))
        if not least <= found <= most:
            raise ValueError(f"must be from {format_size(least)} to {format_size(most)}")
        return found

    return convert


def duration(value: object) -> float:
    """A time such as ``10s``, in seconds."""
    match = _DURATION.fullmatch(str(value))
    if match is None or isinstance(value, bool) or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a time: write a number and ms, s, m or h")
    return float(match[1]) * _SECONDS[match[2]]


def idle(value: object) -> float:
    """A time from 10 s to 7 days (168h), in seconds; none: 0."""
    if value in (None, "none"):
        return 0.0
    if not MIN_IDLE <= (found := duration(value)) <= MAX_IDLE:
        raise ValueError(f"{value!r} is not from {MIN_IDLE}s to {MAX_IDLE // 3600}h, or none")
    return found


def hosts(value: object) -> tuple[str, ...]:
    """A list of hosts: names or IP addresses, without ports."""
    if not isinstance(value, list) or not all(isinstance(host, str) and _HOST.fullmatch(host) for host in value):
        raise ValueError("must be a list of host names or IP addresses, without ports")
    return tuple(host.strip("[]").lower() for host in value)


def address(value: object) -> str:
    """An IP address of this machine; ``localhost`` is 127.0.0.1."""
    host = text(value)
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address") from None


def addresses(value: object) -> tuple[str, ...]:
    """A list of IP addresses of this machine."""
    if not isinstance(value, list):
        raise ValueError("must be a list of IP addresses")
    return tuple(address(one) for one in value)


def rules(value: object) -> dict[str, Profile]:
    """Egress profiles by name.  Raises `UsageError` (INVALID_EGRESS_PROFILE) that says what is wrong with a rule."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be profiles by name, each with `rules`")
    if built_in := sorted(value.keys() & BUILT_IN.keys()):
        raise ValueError(f"{built_in[0]} is a profile that every server has: choose another name")
    return {name: Profile.parse(name, document) for name, document in value.items()}


def authorized_keys(value: object) -> Path | tuple[str, ...]:
    """The absolute path of a file of public keys, or a list of keys, in the form of OpenSSH's ``authorized_keys``."""
    if isinstance(value, str):
        path = Path(value).expanduser()
        if not path.is_absolute():
            raise ValueError(f"{value!r} is neither an absolute path nor a list of keys")
        return path
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of public keys, or the path of a file that holds them")
    for line in value:
        if not isinstance(line, str) or not _is_key(line):
            raise ValueError(f"{str(line)[:40]!r} is not a public key")
    return tuple(value)


def _is_key(line: str) -> bool:
    """Return whether two words in `line` are a key: its kind, and base64 that begins with that kind."""
    words = line.split()
    for pair in itertools.pairwise(words):
        with contextlib.suppress(DataError):
            PublicKey.parse(" ".join(pair))
            return True
    return False


def loopback(value: object) -> str:
    """A loopback address; ``localhost`` is 127.0.0.1.  Raises `UsageError` for others."""
    host = text(value)
    address = "127.0.0.1" if host == "localhost" else host
    try:
        inside = ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise UsageError(f"{host!r} is not an IP address", hint="write 127.0.0.1:8080 or [::1]:8080") from None
    if not inside:
        raise UsageError(
            f"refusing to listen on {host}: whoever reaches this port controls the machine",
            hint="listen on 127.0.0.1 and reach it through an SSH tunnel",
        )
    return address
