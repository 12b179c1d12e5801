"""What commands print: lines, tables, machine output, times in words."""

from __future__ import annotations

import os
import sys

from shed.text import Watched, visible, visible_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from typing import Any

_NARROWEST = 8
"""Characters that each column of a table has at least."""
_FIRST_YEAR = 2000
"""No image is older: 1970, 1980 and the year 1 stand for no time."""
_AGES = (("year", 365 * 86400), ("month", 30 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def say(text: str = "", *, end: str = "\n", flush: bool = False) -> None:
    """Print lines for people.  Control characters are made visible, so that the terminal does not obey them."""
    print(visible_lines(text), end=end, flush=flush)  # noqa: T201  everything else goes through here


def emit(value: object, *, line: bool = False) -> None:
    """Print `value` as JSON: on many lines for people, or on one `line` as one object of several."""
    import json  # noqa: PLC0415  most commands print lines

    say(json.dumps(value, indent=None if line else 2))


def note(text: str) -> None:
    """Tell people something that is not the command's output."""
    print(visible_lines(text), file=sys.stderr)  # noqa: T201  as above


def passing_on(fd: int) -> Callable[[bytes], None]:
    """Return a function that passes on the output of another program to `fd`.

    A terminal gets it with control characters made visible, anything else gets the bytes as they are.
    """
    if not os.isatty(fd):
        return lambda data: write_all(fd, data)
    watched = Watched()
    return lambda data: write_all(fd, watched.feed(data).encode())


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a descriptor."""
    while data:
        data = data[os.write(fd, data) :]


def cell(value: Any) -> str:
    """Return a member of a JSON object on one line; nothing for an empty one."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return ", ".join(map(cell, value)) if isinstance(value, list) else str(value)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under headers, in columns two spaces apart.

    On a terminal that is too narrow, the widest columns are made narrower, and what is cut off there ends in ``…``.
    """
    lines = [tuple(headers), *(tuple(visible(cell) for cell in row) for row in rows)]
    widths = _fitting([max(len(line[column]) for line in lines) for column in range(len(headers))])
    return "".join(
        "  ".join(_cut(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _fitting(widths: list[int]) -> list[int]:
    """Return the widths of columns so that they fit on the terminal, if there is one."""
    try:
        room = os.get_terminal_size(1).columns - 2 * (len(widths) - 1)
    except OSError:
        return widths
    while sum(widths) > room and max(widths) > _NARROWEST:
        widest = widths.index(max(widths))
        widths[widest] = max(_NARROWEST, widths[widest] - (sum(widths) - room), sorted(widths)[-2:][0] - 1)
    return widths


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"


def age(timestamp: str, *, now: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was, as ``3 days ago``; anything else as it is."""
    from datetime import UTC, datetime  # noqa: PLC0415  for tables alone

    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp or "-"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    if then.year < _FIRST_YEAR:  # what builders write who want the same bytes every time
        return "-"
    passed = _length(((now or datetime.now(UTC)) - then).total_seconds())
    return f"{passed} ago" if passed else "just now"


def until(timestamp: str) -> str:
    """Return how far away an RFC 3339 time is, as ``in 3 days``; anything else as it is."""
    from datetime import UTC, datetime  # noqa: PLC0415  as above

    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp or "-"
    seconds = (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    left = _length(seconds * 1.01)  # a moment ago it was 2 hours: it is not to say 1 hour now
    return f"in {left}" if left else "now"


def _length(seconds: float) -> str:
    """Return a time as ``3 days``; empty for less than the shortest of `_AGES`."""
    for unit, length in _AGES:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return ""


def seconds(milliseconds: float) -> str:
    """Return a duration for people."""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def timings(phases: dict[str, float]) -> str:
    """Return one line per phase with the time it took."""
    width = max(map(len, phases), default=0)
    return "".join(f"  {name:<{width}}  {seconds(spent):>8}\n" for name, spent in phases.items() if spent >= 0.5)
