"""Writes docs/reference/cli.md from the commands themselves: `make reference`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from shed.cli import app, erofs, image, image_build, server, sessions, ssh_key, system, token, tunnels, workspace
from shed.cli.options import Described, Options
from shed.server.main import server_parser

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/cli.md"
_GROUPS = {"image": image.COMMANDS, "image bootkit": image_build.BOOTKIT_COMMANDS, "system": system.COMMANDS, "server": server.COMMANDS,
           "tunnels": tunnels.COMMANDS, "token": token.COMMANDS, "ssh-key": ssh_key.COMMANDS,
           "workspace": workspace.COMMANDS,
           "erofs": erofs.COMMANDS}  # fmt: skip
_BY_HAND = ("exec", "console")
"""Commands that read their words themselves, for the sake of their start, and hold their help as a text."""
_HEAD = """# Commands

Made from the programs by `make reference`; a test compares the two. Every command also has `--json`, `-v`, `-s SERVER` and `-c FILE`,
before or after its name. Exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 interrupted; `exec` and `console` return what the
command in the shed returned, and 125 when it could not be run.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD, "## shed\n"]
    parts += [_command(path, command) for path, command in commands()]
    parts.append("## shed-server\n")
    (subparsers,) = (action for action in server_parser()._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    choices = subparsers._choices_actions  # noqa: SLF001
    summaries = {choice.dest: f"{choice.help}"[0].upper() + f"{choice.help}"[1:] for choice in choices}
    parts += [
        _section(f"shed-server {name}", f"{summaries[name]}.", parser) for name, parser in subparsers.choices.items()
    ]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, app.Command]]:
    """Yield all commands of `shed` that do something themselves, by the words that call them."""
    for name, command in app.COMMANDS.items():
        if name not in _GROUPS and not command.alias_of:
            yield name, command
    for group, table in (*_GROUPS.items(), ("sessions", sessions.COMMANDS)):
        for name, command in table.items():
            if f"{group} {name}" not in _GROUPS and not command.alias_of:
                yield f"{group} {name}", command


def _command(path: str, command: app.Command) -> str:
    module, _, function = command.target.partition(":")
    call = getattr(importlib.import_module(module), function)
    if path in _BY_HAND:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            call(["--help"], Options())
        return f"### shed {path}\n\n```\n{out.getvalue().rstrip()}\n```\n"
    options = Options()
    options.describe = True
    try:
        call([], options)
    except Described as described:
        parser = described.found
    assert isinstance(parser, argparse.ArgumentParser)
    return _section(f"shed {path}", parser.description or "", parser)


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
    text = f"### {title}\n\n{description}\n"
    if rows:
        text += "\n| argument | |\n|---|---|\n" + "\n".join(rows) + "\n"
    if parser.epilog:
        text += "\n```\n" + "\n".join(line.strip() for line in parser.epilog.splitlines()[1:]) + "\n```\n"
    return text


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
