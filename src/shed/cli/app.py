"""The commands of `shed`, and finding the one that is meant.  A command's module is imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import NamedTuple

from shed.cli.options import Described, Options, take_all
from shed.errors import UsageError
from shed.terminal.output import say
from shed.version import VERSION


class Command(NamedTuple):
    """Where a command lives (``module:function``, called with its words and the options), and what it does in a few words."""

    target: str
    summary: str
    alias_of: str | None = None


COMMANDS: dict[str, Command] = {
    "create": Command("shed.cli.sheds:create", "create a shed and start it"),
    "list": Command("shed.cli.sheds:list_sheds", "list sheds"),
    "ls": Command("shed.cli.sheds:list_sheds", "", "list"),
    "start": Command("shed.cli.sheds:start", "start a stopped shed"),
    "stop": Command("shed.cli.sheds:stop", "stop a running shed; its files stay"),
    "delete": Command("shed.cli.sheds:delete", "delete a shed and its files"),
    "rm": Command("shed.cli.sheds:delete", "", "delete"),
    "exec": Command("shed.cli.exec:exec_command", "run a command in a shed"),
    "console": Command("shed.cli.exec:console_command", "open a login shell in a shed"),
    "cp": Command("shed.cli.copy:cp", "copy files and folders to and from sheds"),
    "attach": Command("shed.cli.attach:attach", "open a tmux session in a shed"),
    "sessions": Command("shed.cli.sessions:main", "list the tmux sessions in sheds, and end one"),
    "ssh-config": Command("shed.cli.ssh_config:ssh_config", "sheds as hosts of OpenSSH"),
    "ssh-key": Command("shed.cli.ssh_key:main", "keys that are let in by SSH: list, add, remove"),
    "logs": Command("shed.cli.sheds:logs", "show what a shed's console said"),
    "forward": Command("shed.cli.forward:forward", "forward ports of this machine to a shed, until ctrl-C"),
    "tunnels": Command("shed.cli.tunnels:main", "ports of this machine that lead to a shed, also in the background"),
    "workspace": Command("shed.cli.workspace:main", "what a shed has left in the folder that it shares"),
    "image": Command("shed.cli.image:main", "list, inspect, build and remove images"),
    "system": Command("shed.cli.system:main", "what takes up space, and freeing some of it"),
    "server": Command(
        "shed.cli.server:main", "the local server: status, start, stop; servers elsewhere: add, list, remove"
    ),
    "token": Command("shed.cli.token:main", "who may use the server's TCP port"),
    "erofs": Command("shed.cli.erofs:main", "check and read EROFS images"),
    "completion": Command("shed.cli.completion:completion", "completion of words by bash, zsh or fish"),
    "version": Command("shed.cli.version:version", "show the version"),
}


def run(words: list[str], options: Options) -> int:
    """Run the command that `words` hold; return its exit code."""
    _survive_any_output()
    words = take_all(words, options)
    if words[:1] == ["--version"]:
        words = ["version", *words[1:]]
    if words[:1] == ["__complete"]:  # no command for people
        from shed.cli.completion import answer  # noqa: PLC0415

        return answer(words[1:])
    return dispatch(COMMANDS, words, options, prefix="", about="Persistent microVM development environments.")


def dispatch(commands: Mapping[str, Command], words: list[str], options: Options, *, prefix: str, about: str) -> int:
    """Run the command of a table that `words` start with; `prefix` is what stands before them (``image ``)."""
    if options.describe:
        raise Described(commands)
    words = take_all(words, options)
    if not words or words[0] in ("-h", "--help", "help"):
        if words[:1] == ["help"] and len(words) > 1:
            return dispatch(commands, [*words[1:], "--help"], options, prefix=prefix, about=about)
        say(overview(commands, prefix=prefix, about=about), end="")
        return 0
    command = commands.get(words[0])
    if command is None:
        options.json = options.json or "--json" in words
        raise _unknown(words[0], commands, prefix)
    module, _, function = command.target.partition(":")
    code: int = getattr(importlib.import_module(module), function)(words[1:], options)
    return code


def overview(commands: Mapping[str, Command], *, prefix: str, about: str) -> str:
    """Return the help text of a table of commands."""
    width = max(map(len, commands))
    lines = [f"usage: shed {prefix}COMMAND [ARGUMENT...]", "", about, "", "commands:"]
    lines += [f"  {name:<{width}}  {command.summary}" for name, command in commands.items() if not command.alias_of]
    lines += [
        "",
        "options, before or after the command:",
        "  --json               machine output on standard output, and nothing else there",
        "  -v, --verbose        say more; -vv even more",
        (
            "  -s, --server SERVER  configured name, local, unix:///path, http://host:port, or ssh://host (default: the "
            "local server)"
        ),
        "  -c, --config FILE    client configuration (default: ~/.shed/config.yaml)",
        "",
        f"`shed {prefix}COMMAND --help` tells more.",
    ]
    if not prefix:
        lines += ["", f"shed {VERSION}"]
    return "\n".join(lines) + "\n"


def _unknown(word: str, commands: Mapping[str, Command], prefix: str) -> UsageError:
    import difflib  # noqa: PLC0415

    if word.startswith("-"):
        return UsageError(f"unknown option {word}", hint=f"see: shed {prefix}--help")
    near = difflib.get_close_matches(word, commands, n=1)
    hint = f"did you mean: shed {prefix}{near[0]}" if near else f"see: shed {prefix}--help"
    return UsageError(f"unknown command {(prefix + word)!r}", hint=hint)


def _survive_any_output() -> None:
    """Let names that the terminal's encoding does not know, or a closed standard output, not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115  lives as long as the process
