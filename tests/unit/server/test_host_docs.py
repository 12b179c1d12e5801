"""docs/reference/doctor.md and install.md, held against the program."""

import argparse
import re
from pathlib import Path

import pytest

from shed.server.main import server_parser

DOCS = Path(__file__).parents[3] / "docs/reference"
SOURCES = Path(__file__).parents[3] / "src/shed/server/doctor"


def options(command: str) -> set[str]:
    """Return the long options of a command of `shed-server`."""
    (commands,) = [action for action in server_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    parser = commands.choices[command]
    return {name for action in parser._actions for name in action.option_strings if name.startswith("--")} - {"--help"}


@pytest.mark.parametrize(
    ("page", "command"),
    [("doctor", "doctor"), ("install", "install"), ("install", "uninstall"), ("configuration", "config-validate")],
)
def test_each_command_is_shown_with_its_options(page: str, command: str) -> None:
    """All of them, and no others."""
    (shown,) = re.findall(rf"`shed-server {command} (\[[^`]*)`", (DOCS / f"{page}.md").read_text())
    assert set(re.findall(r"--[a-z-]+", shown)) == options(command)


def test_every_row_of_the_doctor_is_explained() -> None:
    """By its name, and none that there is not."""
    rows = {
        row.replace("NAME", "").strip()
        for row in re.findall(r"^\| `([^`]+)` \|", (DOCS / "doctor.md").read_text(), re.MULTILINE)
    }
    backends = (SOURCES.parents[1] / "backends").glob("*/diagnostics.py")
    sources = "".join(path.read_text() for path in (*SOURCES.glob("*.py"), *backends))
    named = set(re.findall(r'(?:Result|Result\.of|_image)\(\s*(?:store, digest, )?f?"([a-z ]+)', sources))
    checks = set(re.findall(r'^    \("([a-z ]+)", ', sources, re.MULTILINE)) - {"leftovers"}
    assert rows == {name.strip() for name in named} | checks
