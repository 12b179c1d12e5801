"""docs/security names a test for each promise: it must be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(
    {
        match
        for page in (ROOT / "docs/security").glob("*.md")
        for match in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    }
)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_promise_has_its_test(file: str, name: str) -> None:
    """By the name that the page says."""
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_each_row_of_promises_names_one() -> None:
    """No promise is only words."""
    rows = 0
    for page in (ROOT / "docs/security").glob("*.md"):
        promises = False
        for line in page.read_text().splitlines():
            if line.startswith(("| promised |", "| attack |")):
                promises = True
            elif promises and line.startswith("| ") and not line.startswith("|---"):
                rows += 1
                assert "`tests/" in line, line
            elif not line.startswith("|"):
                promises = False
    assert rows > 20
