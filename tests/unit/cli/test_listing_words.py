"""Which sheds `shed list` shows, and how."""

from __future__ import annotations

from typing import Any

import pytest

from shed.cli.listing import Filters, Format
from shed.errors import UsageError

SHED: dict[str, Any] = {
    "name": "dev",
    "status": "running",
    "image": "base",
    "cpus": 2,
    "labels": {"ci": "", "team": "a=b"},
    "ports": ["127.0.0.1:1:2", "127.0.0.1:3:4"],
}


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ([], True),
        (["status=running"], True),
        (["status=stopped"], False),
        (["status=stopped", "status=running"], True),
        (["label=ci"], True),
        (["label=team=a=b", "label=ci=", "image=base"], True),
        (["label=ci", "label=other"], False),
        (["label=team=a"], False),
        (["status=running", "image=other"], False),
    ],
)
def test_filters(words: list[str], fits: bool) -> None:
    """All labels, one of the states, one of the images."""
    assert Filters(words).fit(SHED) is fits
    assert Filters(["label=ci"]).fit({"name": "damaged"}) is False


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{name}", "dev"),
        (r"{name}\t{status}", "dev\trunning"),
        ("{{{cpus}}} of {labels}", "{2} of ci=, team=a=b"),
        ("{labels.team}{labels.none}|{ports}|{detail}", "a=b|127.0.0.1:1:2, 127.0.0.1:3:4|"),
        ("plain", "plain"),
    ],
)
def test_formats(text: str, line: str) -> None:
    """Members by name, lists and labels on one line, nothing for what is not there."""
    assert Format(text).line(SHED) == line


@pytest.mark.parametrize("text", ["{", "}", "{name", "{}", "{nam}", "{labels.}", "{name.__class__}", "{name!r}", "{0}"])
def test_what_is_no_format_is_refused(text: str) -> None:
    """With a sentence that says what there is; nothing of Python is behind it."""
    with pytest.raises(UsageError, match="--format: "):
        Format(text)


@pytest.mark.parametrize("word", ["running", "status", "status=", "name=a", "=a", ""])
def test_what_is_no_filter_is_refused(word: str) -> None:
    """As a server refuses an option that it does not know."""
    with pytest.raises(UsageError, match="--filter"):
        Filters([word])
