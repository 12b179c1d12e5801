"""The promises that a newcomer relies on, held against the files."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from shed.version import VERSION

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, str]:
    """Return project names and versions that a lock file pins."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_dependency_is_locked_with_hashes(lock: str) -> None:
    """What pyproject asks for is in the lock files, exactly where it says exactly."""
    pins = locked(lock)
    for dependency in PYPROJECT["project"]["dependencies"]:
        name, exact = re.match(r"([A-Za-z0-9-]+)(?:==(\S+))?", dependency).groups()  # type: ignore[union-attr]
        assert name.lower() in pins
        assert exact in (None, pins[name.lower()])
    assert (ROOT / lock).read_text().count("--hash=sha256:") >= len(pins)


def test_the_codecs_that_decide_bytes_are_pinned_exactly() -> None:
    """A published root filesystem must not change with a codec's version by accident."""
    exact = {d.split("==")[0] for d in PYPROJECT["project"]["dependencies"] if "==" in d}
    assert {"lz4", "zstandard"} <= exact


def test_the_readme_names_the_commands_that_exist() -> None:
    """Every `make` target of the README and of CONTRIBUTING is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"\bmake ([a-z-]+)\b(?= |`|$)", (ROOT / page).read_text(), re.MULTILINE)) <= targets
    assert {"demo", "test"} <= targets


def test_the_change_log_speaks_of_this_version() -> None:
    """A release without an entry would tell users nothing."""
    assert f"## {VERSION}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_decision_is_a_numbered_page_with_a_title() -> None:
    """Decisions stay findable."""
    pages = sorted(path for path in (ROOT / "docs/decisions").glob("*.md") if path.name != "README.md")
    numbers = [page.name[:4] for page in pages]
    assert all(number.isdecimal() for number in numbers)
    assert len(set(numbers)) == len(numbers)
    assert all(page.read_text().startswith("# ") for page in pages)


def test_no_merge_is_left_unfinished() -> None:
    """In no file that git knows."""
    found = subprocess.run(
        ["git", "grep", "-lE", "^(<<<<<<<|>>>>>>>) "], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "")


def test_every_test_says_what_it_shows() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
