"""The glossary: in order, short, and about words that are in use."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs/glossary.md"


def rows() -> list[list[str]]:
    """Return the cells of each row of the table, without its head."""
    lines = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@cache
def project() -> str:
    """Return the code and all pages but the glossary, in lower case."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    return " ".join(" ".join(path.read_text().lower().split()) for path in files if path != GLOSSARY)


def test_words_are_in_alphabetical_order() -> None:
    """Each word is there once, where a reader looks for it."""
    words = [row[0].lower() for row in rows()]
    assert len(words) > 50
    assert words == sorted(set(words))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_word_is_explained_briefly(row: list[str]) -> None:
    """A row has three cells, and says what the word means in one or two sentences."""
    _, usual, meaning = row
    assert usual
    assert meaning.endswith(".")
    assert len(re.split(r"(?<=\.) ", meaning)) <= 2


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_word_is_in_use(row: list[str]) -> None:
    """A word that neither the code nor another page has any more leaves the glossary."""
    found = re.search(rf"\b{re.escape(row[0].lower())}(?:s|ed|d|ing)?\b", project())
    assert found, f"{row[0]!r} occurs nowhere in src and docs"
