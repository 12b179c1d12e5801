"""Turns a terminal recording (asciicast v2) into an SVG that plays by itself: no script, no font, nothing fetched.

Where animations are off (`prefers-reduced-motion`, or a viewer without them) the end of the recording is shown.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass

Event = tuple[float, str]
"""Seconds since the start, and what the terminal got."""

_CELL = (8.4, 19.0)
_EDGE = 16.0
_FONT_SIZE = 14
_HOLD = 6.0
"""Seconds for which the end is shown before the recording begins anew."""
_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """A terminal as far as shed's output needs one: lines, returns, erasing, the cursor up; colours are left out."""

    def __init__(self, columns: int, rows: int) -> None:
        self._columns = columns
        self._rows = rows
        self._lines = [""] * rows
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Apply output.  Raises ValueError for a control sequence that is not known here."""
        position = 0
        while position < len(text):
            if found := _SEQUENCE.match(text, position):
                self._control(found[1], found[2])
                position = found.end()
                continue
            self._character(text[position])
            position += 1

    def lines(self) -> tuple[str, ...]:
        """Return the screen, without blanks at the ends of lines."""
        return tuple(line.rstrip() for line in self._lines)

    def _character(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row += 1
            if self._row == self._rows:
                self._lines = [*self._lines[1:], ""]
                self._row -= 1
        elif character.isprintable():
            if self._column == self._columns:
                self._character("\r")
                self._character("\n")
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1
        else:
            raise ValueError(f"no terminal of ours knows the character {character!r}")

    def _control(self, parameters: str, final: str) -> None:
        if final == "A":
            self._row = max(0, self._row - int(parameters or 1))
        elif final in "JK" and parameters in ("", "0"):
            self._lines[self._row] = self._lines[self._row][: self._column]
            if final == "J":
                self._lines[self._row + 1 :] = [""] * (self._rows - self._row - 1)
        elif final not in "mhl":  # colours and modes change nothing here
            raise ValueError(f"no terminal of ours knows ESC [ {parameters}{final}")


@dataclass(frozen=True)
class _Shown:
    """A line of the screen, and from when to when it is there."""

    row: int
    text: str
    start: float
    end: float | None


def read_cast(text: str) -> tuple[int, int, list[Event]]:
    """Return columns, rows and the output of an asciicast of version 2."""
    head, *rest = text.splitlines()
    header = json.loads(head)
    if header["version"] != 2:
        raise ValueError("this is no asciicast of version 2")
    return header["width"], header["height"], [(at, said) for at, kind, said in map(json.loads, rest) if kind == "o"]


def write_cast(columns: int, rows: int, events: list[Event], *, title: str) -> str:
    """Return the asciicast of a recording."""
    header = {"version": 2, "width": columns, "height": rows, "title": title}
    return "".join(json.dumps(part) + "\n" for part in (header, *([round(at, 3), "o", said] for at, said in events)))


def svg(cast: str) -> str:
    """Return a recording as SVG."""
    columns, rows, events = read_cast(cast)
    total = events[-1][0] + _HOLD
    shown = _intervals(columns, rows, events)
    used = max(line.row for line in shown) + 1
    width, height = columns * _CELL[0] + 2 * _EDGE, used * _CELL[1] + 2 * _EDGE
    rules, texts = [], []
    for number, line in enumerate(shown):
        always = line.start == 0 and line.end is None
        if not always:
            rules.append(_rule(number, line, total))
        kind = "" if always else f' class="{"l" if line.end is None else "g"}" style="animation-name:k{number}"'
        y = _EDGE + line.row * _CELL[1] + _FONT_SIZE
        texts.append(f'<text x="{_EDGE:g}" y="{y:g}"{kind}>{_marked(line.text)}</text>')
    style = (
        f".l,.g{{animation-duration:{total:.2f}s;animation-timing-function:step-end;animation-iteration-count:infinite}}"
        ".g{visibility:hidden}"
        f"text{{font:{_FONT_SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "fill:#d8dee9;white-space:pre}.p{fill:#8fbcbb}.c{fill:#ffffff;font-weight:600}"
        "@media (prefers-reduced-motion:reduce){.l,.g{animation:none}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="A terminal recording" xml:space="preserve">\n'
        f"<style>{style}\n{chr(10).join(rules)}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#1f2430"/>\n{chr(10).join(texts)}\n</svg>\n'
    )


def _intervals(columns: int, rows: int, events: list[Event]) -> list[_Shown]:
    screen = Screen(columns, rows)
    since: dict[int, tuple[str, float]] = {}
    done: list[_Shown] = []
    for at, said in events:
        screen.feed(said)
        for row, text in enumerate(screen.lines()):
            before, start = since.get(row, ("", 0.0))
            if text != before:
                if before and at > start:
                    done.append(_Shown(row, before, start, at))
                since[row] = (text, at)
    last = [_Shown(row, text, start, None) for row, (text, start) in since.items() if text]
    return sorted([*done, *last], key=lambda line: (line.row, line.start))


def _rule(number: int, line: _Shown, total: float) -> str:
    steps = ["0%{visibility:hidden}"] if line.start else []
    steps.append(f"{100 * line.start / total:.2f}%{{visibility:visible}}")
    steps.append(
        "to{visibility:visible}" if line.end is None else f"{100 * line.end / total:.2f}%{{visibility:hidden}}"
    )
    return f"@keyframes k{number}{{{''.join(steps)}}}"


def _marked(text: str) -> str:
    """Return a line as SVG's content, with prompt and command told apart from output."""
    if text == "$" or text.startswith("$ "):
        return f'<tspan class="p">$</tspan><tspan class="c">{html.escape(text[1:], quote=False)}</tspan>'
    return html.escape(text, quote=False)
