"""Sizes in bytes, as people write and read them.  Units are powers of 1024."""

from __future__ import annotations

from shed.errors import UsageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_MOST_DIGITS, _SPACES = 18, " \t\n\r\f\v"
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int:
    """Return the bytes that `text` means: ``5G``, ``512M``, ``1.5GiB`` or ``1073741824``.  Raises `UsageError`."""
    short = text.strip().upper()
    ending = "IB" if short.endswith("IB") else "B" if short.endswith("B") else ""
    short = short.removesuffix(ending)
    unit = short[-1:] if short[-1:] in _UNITS else ""
    number = short.removesuffix(unit).rstrip(_SPACES)
    whole, point, part = number.partition(".")
    right = short.isascii() and whole.isdigit() and len(whole) <= _MOST_DIGITS and (part.isdigit() or not point)
    if not right:
        raise UsageError(f"{text!r} is not a size", hint="write a number and a unit: 512M, 5G")
    return int(float(number) * 1024 ** _UNITS[unit])


def parse_memory(text: str) -> int:
    """Return the MiB that `text` means: ``2048`` (MiB), ``512M`` or ``4G``.  Raises `UsageError`."""
    size = parse_size(f"{text}M" if text.isascii() and text.isdigit() else text)
    if size % MIB:
        raise UsageError(f"{text!r} is not a whole number of megabytes", hint="write one: 512M, 4G")
    return size // MIB


def format_size(size: int) -> str:
    """Return `size` bytes for people: in the largest unit that gives at least 1, with at most one decimal."""
    value, units = float(size), iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"
