"""Text of others: nothing of it is obeyed by a terminal, and nothing of it is hidden."""

from __future__ import annotations

import logging
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.server.logfile import OneLine
from shed.text import Watched, visible, visible_lines

HOSTILE = {
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "a\x9b2Jb\x7f": r"a\x9b2Jb\x7f",
    "user\u202egpj.exe": r"user\u202egpj.exe",
    "a\u2028b\u200bc\ufeff": r"a\u2028b\u200bc\ufeff",
    "one\r\ntwo": r"one\r\ntwo",
    "\ud800 \udcff": r"\ud800 \xff",
    "\U000e0041": r"\U000e0041",
    "Grüße, 日本": "Grüße, 日本",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items(), ids=map(ascii, HOSTILE))
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    """Sequences of C0 and C1, bidirectional overrides, line separators, lone surrogates; other scripts stay."""
    assert visible(text) == shown


@given(st.text(st.characters(codec=None)))
def test_nothing_else_comes_out(text: str) -> None:
    """Whatever goes in, no control, format or surrogate character does, and it can be written as UTF-8."""
    console = Watched().feed(text.encode("utf-8", "surrogatepass"), last=True)
    for shown, kept in ((visible(text), ""), (visible_lines(text), "\n\t"), (console, "\n\t")):
        assert all(unicodedata.category(character)[0] != "C" or character in kept for character in shown)
        shown.encode()


@given(st.lists(st.integers(0, 60), max_size=10).map(sorted))
def test_a_console_is_the_same_however_it_comes(cuts: list[int]) -> None:
    """Colours are left out, line ends are line ends, and all else that would be obeyed is shown, cut anywhere."""
    console = b"\x1b[0;32m  OK  \x1b[0m f\xc3\xbcr\r\n\x1b]0;evil\x07\xff\r\x1b[2J\x1b[38;5;1mx\x1b["
    watched = Watched()
    pieces = [watched.feed(console[a:b]) for a, b in zip([0, *cuts], [*cuts, len(console)], strict=True)]
    assert "".join([*pieces, watched.feed(b"", last=True)]) == "  OK   für\n" + r"\x1b]0;evil\x07\xff\r\x1b[2Jx\x1b["


def test_a_record_of_the_log_is_one_line() -> None:
    """A message cannot forge another, nor can an exception's: what follows a record's line is indented."""
    format_ = OneLine("%(levelname)s %(name)s: %(message)s")
    try:
        raise ValueError("no\nERROR shed: forged\x1b[2J")
    except ValueError:
        record = logging.LogRecord(
            "shed", logging.INFO, "", 0, "the guest says %s", ("a\nERROR shed: forged\x1b[2J",), sys.exc_info()
        )
    first, *more = format_.format(record).split("\n")
    assert first == r"INFO shed: the guest says a\nERROR shed: forged\x1b[2J"
    assert all(line.startswith("  ") and line.isprintable() for line in more)
    assert "  ERROR shed: forged\\x1b[2J" in more
