"""Decoding what a guest sends: JSON, text and numbers.

A guest's root can send anything, so no size, depth or type is trusted here, and every failure is a `ValueError`.  The
limits are small enough to decode in the event loop: the longest text takes a few milliseconds.
"""

from __future__ import annotations

from shed.text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MOST_JSON = 32 * 1024
"""Most bytes of one JSON text from a guest; an honest one has less than two thousand."""
MOST_DEPTH = 8
"""Most objects and lists inside each other."""
MOST_DIGITS = 18
"""Most digits of an integer, so that it fits into 64 bits."""
MOST_SIGNAL = 64
MOST_TEXT = 300
"""Most characters of a guest's text in an error, a log line or an answer of the API."""


def load_object(data: bytes, *, most: int = MOST_JSON, depth: int = MOST_DEPTH) -> dict[str, Any]:
    """Return the JSON object in `data`, which may have at most `most` bytes, and `depth` levels.

    Integers have at most 18 digits, other numbers are finite, and text is Unicode without lone surrogates.  Raises
    `ValueError`, whose message says what is wrong.
    """
    import json  # noqa: PLC0415  not needed when a command succeeds

    if len(data) > most:
        raise ValueError(f"JSON of {len(data)} bytes, {most} is the most")
    try:
        value = json.loads(data.decode(), parse_int=_whole, parse_float=_finite, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"JSON that is deeper than {depth}") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {told(str(error))}") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    _check(value, depth)
    return value


def load_exit(payload: bytes) -> tuple[int, int, str | None]:
    """Return what an exit frame says: the exit code (0 to 255), the number of the signal or 0, and an error or None.

    The error says why the command did not start.  Raises `ValueError`.
    """
    answer = load_object(payload)
    code, signal, error = answer.get("code"), answer.get("signal"), answer.get("error")
    if not isinstance(code, int) or isinstance(code, bool):
        raise ValueError("an exit frame without a code")
    if not isinstance(signal, int) or not 0 < signal <= MOST_SIGNAL:
        signal = 0
    return code & 0xFF, signal, told(error) if isinstance(error, str) else None


def told(value: object, most: int = MOST_TEXT) -> str:
    """Return what a guest sent, whatever its type, as one printable line of at most `most` characters."""
    text = value if isinstance(value, str) else str(value)
    shown = visible(text[:most])
    return shown if len(text) <= most and len(shown) <= most else f"{shown[: most - 1]}…"


def number(text: str, least: int, most: int) -> int | None:
    """Return the integer in `text`, in decimal digits; None when it is none, or not from `least` to `most`."""
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        return None
    value = int(text)
    return value if least <= value <= most else None


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + text.startswith("-"):
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if value - value:  # true for infinity and NaN alone
        raise ValueError("a number that is too large")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _check(value: object, depth: int) -> None:
    """Raise `ValueError` for a value that is too deep, or has text that cannot be encoded as UTF-8."""
    if isinstance(value, str):
        value.encode()  # a UnicodeEncodeError is a ValueError
    elif isinstance(value, dict | list):
        if not depth:
            raise ValueError("JSON that is too deep")
        for inner in value:
            _check(inner, depth - 1)
        if isinstance(value, dict):
            for inner in value.values():
                _check(inner, depth - 1)
