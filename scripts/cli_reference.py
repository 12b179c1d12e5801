"""Writes docs/reference/cli.md from the commands themselves: `make reference`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from shed.cli import exec as by_hand
from shed.cli.app import SHED
from shed.cli.arguments import Argument
from shed.cli.command import Command, Group
from shed.cli.help import label
from shed.server.main import server_parser

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/cli.md"
_HEAD = """# Commands

Made from the programs by `make reference`; a test compares the two. Every command also has `--json`, `-v`, `-s SERVER`
and `-c FILE`, before or after its name. Exit codes: 0 done, 1 failed, 2 the command line is wrong, 3 a shed
was made but not all was done in it, 130 interrupted; `exec` and `console` return what the command in the shed returned,
and 125 when it could not be run.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD, "## shed\n"]
    parts += [_command(path, found) for path, found in commands()]
    parts.append("## shed-server\n")
    (subparsers,) = (action for action in server_parser()._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    choices = subparsers._choices_actions  # noqa: SLF001
    summaries = {choice.dest: f"{choice.help}"[0].upper() + f"{choice.help}"[1:] for choice in choices}
    parts += [
        _section(f"shed-server {name}", f"{summaries[name]}.", parser) for name, parser in subparsers.choices.items()
    ]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, object]]:
    """Yield all commands of `shed` that do something themselves, by the words that call them; groups come last."""
    groups: list[Group] = []
    for name, entry in SHED.commands.items():
        if not entry.alias_of:
            found = entry.load()
            if isinstance(found, Group):
                groups.append(found)
                if found.default is not None:
                    yield name, found.default
            else:
                yield name, found
    for group in groups:
        yield from _of_group(group)


def _of_group(group: Group) -> Iterator[tuple[str, object]]:
    for name, entry in group.commands.items():
        found = entry.load()
        if isinstance(found, Group):
            yield from _of_group(found)
        elif not entry.alias_of:
            yield f"{group.name} {name}", found


def _command(path: str, found: object) -> str:
    if not isinstance(
        found, Command
    ):  # it reads its words itself, for the sake of its start, and holds its help as a text
        text = by_hand.EXEC_HELP if found is by_hand.exec_command else by_hand.CONSOLE_HELP
        return f"### shed {path}\n\n```\n{text.rstrip()}\n```\n"
    own = sorted(found.arguments, key=lambda one: bool(one.names))
    rows = [f"| {_names(one)} | {_cell(one.help)}{' (required)' if one.required else ''} |" for one in own]
    examples = "\n```\n" + "\n".join(found.examples) + "\n```\n" if found.examples else ""
    return f"### shed {path}\n\n" + "\n\n".join(found.about) + "\n" + _table(rows) + examples


def _names(one: Argument) -> str:
    return (
        f"`{label(one).strip()}`"
        if len(one.names) < 2
        else ", ".join(f"`{name} {one.value}".rstrip() + "`" for name in one.names)
    )


def _table(rows: list[str]) -> str:
    return "\n| argument | |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""


def _section(title: str, description: str, parser: argparse.ArgumentParser) -> str:
    rows = []
    shown = [group for group in parser._action_groups if group.title != "global options"]  # noqa: SLF001
    for action in (action for group in shown for action in group._group_actions):  # noqa: SLF001
        if isinstance(action, argparse._HelpAction):  # noqa: SLF001
            continue
        value = str(action.metavar or "") if action.nargs != 0 else ""
        names = (
            ", ".join(f"`{name}{f' {value}' if value else ''}`" for name in action.option_strings)
            or f"`{value or action.dest}`"
        )
        required = " (required)" if action.required and action.option_strings else ""
        rows.append(f"| {names} | {_cell(action.help or '')}{required} |")
    text = f"### {title}\n\n{description}\n" + _table(rows)
    if parser.epilog:
        text += "\n```\n" + "\n".join(line.strip() for line in parser.epilog.splitlines()[1:]) + "\n```\n"
    return text


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
