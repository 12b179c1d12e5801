"""The index of what tests share is complete."""

import re
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"


def test_every_support_file_has_one_line_in_the_index() -> None:
    """`tests/support/README.md` lists each file once, and no file that is not there."""
    listed = re.findall(r"^\| `([^`]+\.py)` \|", (SUPPORT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(SUPPORT)) for path in SUPPORT.rglob("*.py"))
