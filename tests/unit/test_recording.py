"""The terminal recording of the documentation: the picture shows what the recording holds."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CAST = ROOT / "docs/assets/quick-start.cast"


@pytest.fixture
def terminal_svg(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module that draws."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("terminal_svg")


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module that records."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("recording")


def test_the_picture_is_drawn_from_the_recording(terminal_svg: ModuleType) -> None:
    """Run `make recording` when this fails."""
    assert CAST.with_suffix(".svg").read_text() == terminal_svg.svg(CAST.read_text())


def test_the_recording_is_of_the_commands_of_the_script(terminal_svg: ModuleType, recording: ModuleType) -> None:
    """In order; and it tells nothing of the machine where it was made."""
    columns, rows, events = terminal_svg.read_cast(CAST.read_text())
    screen = terminal_svg.Screen(columns, rows)
    screen.feed("".join(said for _, said in events))
    typed = [line.removeprefix("$ ") for line in screen.lines() if line.startswith("$ ")]
    assert typed == list(recording.COMMANDS)
    assert not re.search(r"/(home|tmp|root|work)/", CAST.read_text())


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\r\ntwo", ["one", "two"]),
        ("working\r\x1b[Jdone", ["done"]),
        ("a\r\nb\x1b[1A\r\x1b[Jc", ["c"]),
        ("\x1b[1;32mgreen\x1b[0m", ["green"]),
        ("123456789", ["1234567", "89"]),
        ("1\r\n2\r\n3\r\n4", ["2", "3", "4"]),
    ],
)
def test_the_screen_of_a_terminal(terminal_svg: ModuleType, said: str, shown: list[str]) -> None:
    """Whatever shed writes to one is understood."""
    screen = terminal_svg.Screen(7, 3)
    screen.feed(said)
    assert [line for line in screen.lines() if line] == shown


@pytest.mark.parametrize("said", ["\x1b[2;3H", "\x07", "\x1b]0;title\x07"])
def test_a_sequence_that_is_not_known_is_no_picture(terminal_svg: ModuleType, said: str) -> None:
    """A wrong picture would be worse than none."""
    with pytest.raises(ValueError, match="no terminal of ours"):
        terminal_svg.Screen(7, 3).feed(said)


def test_a_line_is_there_from_when_it_was_said_to_when_it_changed(terminal_svg: ModuleType) -> None:
    """Of two seconds of recording, and six of the end."""
    drawn = terminal_svg.svg(terminal_svg.write_cast(7, 3, [(0.0, "now"), (2.0, "\r\x1b[J<then>")], title=""))
    assert "@keyframes k0{0.00%{visibility:visible}25.00%{visibility:hidden}}" in drawn
    assert "@keyframes k1{0%{visibility:hidden}25.00%{visibility:visible}to{visibility:visible}}" in drawn
    assert "&lt;then&gt;" in drawn


def test_what_is_written_is_an_asciicast(terminal_svg: ModuleType) -> None:
    """Of version 2, as players read it."""
    head, *events = terminal_svg.write_cast(80, 24, [(0.12345, "a\r\n")], title="t").splitlines()
    assert json.loads(head) == {"version": 2, "width": 80, "height": 24, "title": "t"}
    assert json.loads(events[0]) == [0.123, "o", "a\r\n"]
    with pytest.raises(ValueError, match="version 2"):
        terminal_svg.read_cast('{"version": 1, "width": 80, "height": 24}\n')
