"""Values in the words of a command: sizes, times, numbers, ports."""

from __future__ import annotations

from shed.errors import UsageError

_MOST_DIGITS = 15
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def size(text: str) -> int:
    """Return the bytes that ``5M`` or ``1.5GiB`` stands for.  Raises `UsageError`."""
    from shed.sizes import parse_size

    return parse_size(text)


def memory(text: str) -> int:
    """Return the megabytes that ``512M``, ``4G`` or a bare number of them stands for.  Raises `UsageError`."""
    from shed.sizes import parse_memory

    return parse_memory(text)


def duration(text: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``10m``, ``1.5h`` or ``7d`` stands for.  Raises `UsageError`."""
    digits = text.rstrip("mshd")
    whole, point, part = digits.partition(".")
    right = _is_number(whole) and (_is_number(part) or not point)
    unit = _SECONDS.get(text[len(digits) :])
    if not right or unit is None or float(digits) <= 0:
        raise UsageError(f"{text!r} is not a time", hint="write a number and a unit: 90s, 10m, 1h, 7d")
    return float(digits) * unit


def duration_or_none(text: str) -> float:
    """Return what `duration` does, 0 for ``none``.  Raises `UsageError`."""
    return 0.0 if text == "none" else duration(text)


def count(text: str) -> int:
    """Return the number that `text` is, 1 at least.  Raises `UsageError`."""
    if _is_number(text) and int(text) > 0:
        return int(text)
    raise UsageError(f"{text!r} is not a whole number above 0")


def number(text: str) -> int:
    """Return the number that `text` is, which can be 0.  Raises `UsageError`."""
    if _is_number(text):
        return int(text)
    raise UsageError(f"{text!r} is not a whole number")


def port(text: str) -> int:
    """Return the TCP port that `text` is.  Raises `UsageError`."""
    if _is_number(text) and 1 <= int(text) <= 65535:
        return int(text)
    raise UsageError(f"{text!r} is not a port, from 1 to 65535")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def names(text: str) -> list[str]:
    """Return the names in `text`, with commas between them."""
    return [name for name in text.split(",") if name]


def names_or_none(text: str) -> list[str]:
    """Return the names in `text`, with commas between them; ``none`` stands for none of them."""
    return [] if text == "none" else names(text)
