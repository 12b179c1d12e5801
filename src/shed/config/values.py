"""What a setting may be: each function turns what YAML read into what the server runs with, or raises `ValueError` or `UsageError`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from shed.config.sizes import format_size, parse_size
from shed.errors import UsageError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
Convert = Callable[[object], object]


def text(value: object) -> str:
    """Any text but none."""
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


def number(least: int, most: int) -> Convert:
    """A whole number from `least` to `most`."""

    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return convert


def size(least: int, most: int) -> Convert:
    """A size from `least` to `most` bytes, as people write it."""

    def convert(value: object) -> int:
        found = parse_size(str(value))
        if not least <= found <= most:
            raise ValueError(f"must be from {format_size(least)} to {format_size(most)}")
        return found

    return convert


def duration(value: object) -> float:
    """A time, in seconds."""
    match = _DURATION.fullmatch(str(value))
    if match is None or isinstance(value, bool) or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a time: write a number and ms, s, m or h")
    return float(match[1]) * _SECONDS[match[2]]


def loopback(value: object) -> str:
    """An address that only this machine reaches; ``localhost`` is 127.0.0.1.  Raises `UsageError` for others."""
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
