"""The documentation and the programs say the same: every command and option is documented, and none is made up."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shed.cli.app import SHED
from shed.cli.command import Command, Group
from shed.cli.exec import exec_command, parse
from shed.cli.options import Options
from shed.server.main import server_parser

ROOT = Path(__file__).parents[3]
GLOBAL = {"--json", "--verbose", "-v", "-vv", "--server", "-s", "--config", "-c", "--help", "-h", "--version"}
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def generator() -> ModuleType:
    """Return the program that writes the page."""
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "scripts/cli_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options() -> dict[str, set[str]]:
    """Return the options of every command, by its words, as the page has them."""
    found = {}
    for section in (ROOT / "docs/reference/cli.md").read_text().split("\n### ")[1:]:
        title, _, text = section.partition("\n")
        found[title] = set(re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", text.partition("examples:")[0]))
    return found


def test_the_page_is_what_the_commands_say() -> None:
    """Write it anew with `make reference` when this fails."""
    made = generator()
    assert made.PAGE.read_text() == made.page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_documentation_exist(page: Path) -> None:
    """Whatever a page's code calls is a command, with options that it has."""
    known = options()
    for block in re.findall(
        r"^```[^\n]*\n(.*?)^```", re.sub(r"\$\([^)]*\)", "", page.read_text()), re.DOTALL | re.MULTILINE
    ):
        for call in re.findall(
            r"(?:^|[|;&(]\s*|\$ |sudo |xargs (?:-\S+ )*|bin/)(shed(?:-server)? (?!doctor:)[^|;&#\n]*)",
            block,
            re.MULTILINE,
        ):
            words = [word.rstrip(".,)\"'") for word in call.split()]
            path = next((" ".join(words[:count]) for count in (4, 3, 2) if " ".join(words[:count]) in known), None)
            if path is None:
                assert words[1].startswith("-") or words[1].isupper() or words[-1] == "...", (
                    f"{page.name}: there is no `{call}`"
                )
                continue
            own = words[: words.index("--")] if "--" in words else words
            for word in own[len(path.split()) :]:
                if word.startswith("-") and len(word) > 1:
                    assert word.partition("=")[0] in known[path] | GLOBAL, f"{page.name}: `{path}` has no {word}"


def _program(words: list[str]) -> Iterator[list[str]]:
    """Yield the words from `shed` or `shed-server` on, if that is what a simple command runs."""
    more: list[str] = []
    while words and (words[0] in ("sudo", "xargs", "ssh", "$") or words[0].startswith("-") or "=" in words[0]):
        first, *words = words
        if first == "ssh":
            words = words[1:]
        elif first == "xargs":
            more = ["from-xargs"]
    if words and words[0] in ("shed", "shed-server"):
        yield words + more


def calls(page: Path) -> Iterator[list[str]]:
    """Yield the words of each call of `shed` and `shed-server` in the blocks of a page that are marked ``sh``."""
    for block in re.findall(r"^```sh\b[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\$\([^)]*\)", "1", block).splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            call: list[str] = []
            for word in [*lexer, ";"]:
                if word.strip("();<>|&"):
                    call.append(word)
                    continue
                yield from _program(call)
                call = []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_calls_in_shell_blocks_are_understood(page: Path) -> None:
    """By the programs' own parsers: as many arguments as they take, and values that are possible."""
    for program, *words in calls(page):
        if program == "shed-server":
            server_parser().parse_args(words)
            continue
        entry = SHED
        while isinstance(entry, Group):
            words = words[next(at for at, word in enumerate(words) if not word.startswith("-")) :]  # noqa: PLW2901
            name, *words = words  # noqa: PLW2901
            assert name in entry.commands, f"{page.name}: shed {entry.prefix}{name}"
            found = entry.commands[name].load()
            if not isinstance(found, Group):
                break
            entry = found
        if isinstance(found, Command):
            found.parse(words, Options())
        elif found is exec_command:
            parse(words, Options())


def test_the_pages_have_such_blocks() -> None:
    """So that the test above looks at something."""
    assert sum(len(list(calls(page))) for page in PAGES) > 60
