"""The help texts of commands and of their tables, made from their declarations."""

from __future__ import annotations

import os

from shed.cli.arguments import GLOBAL, HELP, Argument
from shed.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shed.cli.command import Command, Group

_LEFT = 24
"""Columns for the names of arguments; a longer name has its text on the next line."""
_WIDEST, _NARROWEST = 100, 40


def of_command(command: Command) -> str:
    """Return the help text of a command."""
    width = _width()
    own = [one for one in command.arguments if one.names]
    parts = [_wrapped(usage(command), width, indent=" " * 8)]
    parts += [_wrapped(paragraph, width) for paragraph in command.about]
    parts += _section("arguments", command.places(), width)
    parts += _section("options", [*own, HELP], width)
    parts += _section("global options", GLOBAL, width)
    if command.examples:
        parts.append("examples:\n" + "".join(f"  {line}\n" for line in command.examples))
    return "\n".join(parts)


def usage(command: Command) -> str:
    """Return one line that shows how a command is called."""
    words = [f"usage: shed {command.name}"]
    words += [f"{one.names[0]} {one.value}" for one in command.arguments if one.required]
    if any(one.names and not one.required for one in command.arguments):
        words.append("[OPTION...]")
    words += [_counted(one) for one in command.places()]
    return " ".join(words)


def label(one: Argument) -> str:
    """Return an argument as the help lists it: ``-i, --image IMAGE``."""
    if not one.names:
        return one.value
    names = ", ".join(one.names) if one.names[0][1] != "-" else f"    {one.names[0]}"
    return f"{names} {one.value}".rstrip()


def of_group(group: Group) -> str:
    """Return the help text of a table of commands."""
    width = _width()
    rows = [(_with_aliases(name, group), entry.summary) for name, entry in group.commands.items() if not entry.alias_of]
    left = max(len(name) for name, _ in rows)
    parts = [f"usage: shed {group.prefix}COMMAND [ARGUMENT...]\n", _wrapped(group.about, width)]
    parts.append("commands:\n" + "".join(_row(name, text, left, width) for name, text in rows))
    options = "".join(_row(label(one), one.help, _LEFT, width) for one in GLOBAL)
    parts.append("options, before or after the command:\n" + options)
    parts.append(f"`shed {group.prefix}COMMAND --help` tells more.\n")
    if not group.name:
        parts.append(f"shed {VERSION}\n")
    return "\n".join(parts)


def _with_aliases(name: str, group: Group) -> str:
    """Return a command's name and its other names: ``delete, rm``."""
    others = [other for other, entry in group.commands.items() if entry.alias_of == name and other[0] != "-"]
    return ", ".join([name, *others])


def _section(title: str, arguments: Sequence[Argument], width: int) -> list[str]:
    rows = "".join(_row(label(one), one.help, _LEFT, width) for one in arguments)
    return [f"{title}:\n{rows}"] if rows else []


def _row(name: str, text: str, left: int, width: int) -> str:
    """Return a name with its text beside it, `left` columns away; below it when the name is longer."""
    indent = " " * (left + 4)
    lines = _wrapped(text, max(width, left + _NARROWEST), indent=indent, first=indent) or "\n"
    return f"  {name}\n{lines.removeprefix(chr(10))}" if len(name) > left else f"  {name:<{left}}  {lines.lstrip(' ')}"


def _counted(one: Argument) -> str:
    many = f"[{one.value}...]"
    return {"?": f"[{one.value}]", "+": f"{one.value}...", "*": many, "rest": many}.get(one.count, one.value)


def _wrapped(text: str, width: int, *, indent: str = "", first: str = "") -> str:
    """Return `text` in lines of at most `width` columns; those after the first begin with `indent`."""
    lines, line = [], first
    for word in text.split():
        if line.strip() and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = indent
        line += f" {word}" if line.strip() else word
    return "\n".join([*lines, line]) + "\n" if line.strip() else ""


def _width() -> int:
    """Return how many columns a line of help may have, as the terminal has room."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        columns = 0
    return max(_NARROWEST, min(columns, _WIDEST)) if columns > 0 else 80
