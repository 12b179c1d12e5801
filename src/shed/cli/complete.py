"""What can stand at the end of an unfinished command line, by the tables and parsers that will read it."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from shed.cli import exec as by_hand
from shed.cli.app import COMMANDS, Command
from shed.cli.options import Described, Options, take
from shed.client import http
from shed.client.address import Address
from shed.client.config import load, resolve
from shed.errors import UsageError
from shed.text import visible

_PATIENCE = 1.5
"""Seconds for a server to tell its names: the user is typing."""
_GLOBAL = (
    ("--json", "machine output"),
    ("--verbose", "say more"),
    ("--server", "which server"),
    ("--config", "client configuration"),
    ("--help", "what a command does"),
)
_FILES = {"FILE", "PATH", "PATTERN"}
_FOLDERS = {"DIR", "DIR[:MODE]", "CONTEXT"}
_NEW_NAMES = {"create", "image", "server", "tunnels", "erofs", "system", "token"}
"""First words of commands whose NAME is not that of a shed."""
Word = tuple[str, str]
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@=-]+")
"""Words that no shell sees more in."""


@dataclass(slots=True)
class Found:
    """Words with descriptions, and whether the shell shall add ``files`` or ``folders``; plain ``words`` otherwise."""

    words: list[Word] = field(default_factory=list)
    kind: str = "words"


def split(line: str) -> list[str]:
    """Return the words of a line that is not finished; the last one is what is being typed, perhaps nothing."""
    import shlex  # noqa: PLC0415  bash alone needs it

    for end in ("", "'", '"'):
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return words[1:] if line and not line[-1].isspace() else [*words[1:], ""]
    return [""]


def complete(before: Sequence[str], current: str) -> Found:
    """Return what `current` can become behind the words `before`, the program's name aside."""
    options, words, path = Options(), list(before), list[str]()
    table: Mapping[str, Command] = COMMANDS
    while True:
        try:
            while words and (count := take(words, options)):
                words = words[count:]
        except UsageError:  # the value of the last one is being typed
            return _of_global(words[0], current)
        if not words:
            return _starting(current, _commands(table) + (list(_GLOBAL) if current.startswith("-") else []))
        command = table.get(words[0])
        if command is None:
            return Found()
        path.append(command.alias_of or words[0])
        words = words[1:]
        if command.target.startswith(f"{by_hand.__name__}:"):
            return _of_exec(path[0], words, current, options)
        found, more = _described(command)
        if isinstance(found, argparse.ArgumentParser):
            if words and words[0] in more:
                table = more
                continue
            return _of_parser(found, path, words, current, options, more=more)
        table = cast(Mapping[str, Command], found)


def _described(command: Command) -> tuple[object, Mapping[str, Command]]:
    """Return the table or parser of a command, and the commands that can stand in place of the parser's first word."""
    module, _, function = command.target.partition(":")
    loaded = importlib.import_module(module)
    options = Options()
    options.describe = True
    try:
        getattr(loaded, function)([], options)
    except Described as described:
        return described.found, getattr(loaded, "COMMANDS", {}) if function == "main" else {}
    raise UsageError(f"{command.target} describes nothing")


def _of_parser(
    parser: argparse.ArgumentParser,
    path: list[str],
    words: list[str],
    current: str,
    options: Options,
    *,
    more: Mapping[str, Command],
) -> Found:
    """Return what can stand behind `words` of the command `path`."""
    actions = parser._actions  # noqa: SLF001  argparse has no other way to ask
    by_name = {name: action for action in actions for name in action.option_strings}
    given: list[str] = []
    only_words = False
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if only_words or not word.startswith("-") or word == "-":
            given.append(word)
            continue
        only_words = word == "--"
        name, equals, value = word.partition("=")
        action = by_name.get(name)
        if action is None or action.nargs == 0:
            continue
        if not equals:
            if index == len(words):
                return _starting(current, *_values(action, path, given, options))
            value = words[index]
            index += 1
        if action.dest in ("server", "config"):
            setattr(options, action.dest, value)
    if current.startswith("-") and current != "-" and not only_words:
        name, equals, _ = current.partition("=")
        if equals:
            found = _values(by_name[name], path, given, options) if name in by_name else ([], "words")
            return Found(
                [(f"{name}={word}", text) for word, text in found[0] if f"{name}={word}".startswith(current)], found[1]
            )
        return _starting(
            current, [(name, action.help or "") for name, action in by_name.items() if name.startswith("--")]
        )
    places = [action for action in actions if not action.option_strings]
    first = _commands(more) if not given else []
    if len(given) >= len(places) and not (places and places[-1].nargs in ("*", "+")):
        return _starting(current, first)
    values, kind = _values(places[min(len(given), len(places) - 1)], path, given, options)
    return _starting(current, first + values, kind)


def _of_exec(command: str, words: list[str], current: str, options: Options) -> Found:
    """Return what can stand behind the words of exec and console, which have no parser."""
    try:
        request = by_hand.parse(words, options)
    except UsageError:  # the value of the last one is being typed
        return (
            Found(kind="files")
            if words[-1] in ("-c", "--config")
            else _starting(current, _servers(options) if words[-1] in ("-s", "--server") else [])
        )
    if request.command or "--" in words:
        return Found()
    if current.startswith("-"):
        names = [name for name in (*by_hand.OPTIONS, *by_hand.FLAGS) if name.startswith("--")]
        return _starting(current, [(name, "") for name in names] + list(_GLOBAL))
    return _starting(current, [] if request.name else _sheds(options))


def _values(action: argparse.Action, path: list[str], given: list[str], options: Options) -> tuple[list[Word], str]:
    """Return what an argument can be, and what the shell shall add."""
    kind = str(action.metavar or "")
    if action.choices is not None:
        return [(str(choice), "") for choice in action.choices], "words"
    if kind in ("SRC", "DEST"):
        return [(f"{name}:", text) for name, text in _sheds(options)], "files"
    if kind in _FILES or kind in _FOLDERS:
        return [], "files" if kind in _FILES else "folders"
    if kind == "SERVER" or (path[0] == "server" and kind == "NAME" and not action.option_strings and path[-1] != "add"):
        return _servers(options), "words"
    if kind == "IMAGE":
        return _images(options), "words"
    if kind == "SESSION":
        return (_sessions(given[0], options) if given else []), "words"
    if kind == "NAME" and not action.option_strings and path[0] not in _NEW_NAMES:
        return _sheds(options), "words"
    return [], "words"


def _of_global(option: str, current: str) -> Found:
    """Return what the value of a global option can be."""
    if option in ("-s", "--server"):
        return _starting(current, _servers(Options()))
    return Found(kind="files" if option in ("-c", "--config") else "words")


def _starting(current: str, words: Iterable[Word], kind: str = "words") -> Found:
    """Return those that go on where the user is.

    What a server calls a thing may not be a name, and a shell would take it apart.
    """
    fitting = ((word, text) for word, text in words if word.startswith(current) and _PLAIN.fullmatch(word))
    return Found([(word, visible(" ".join(text.split())).replace("%%", "%")) for word, text in fitting], kind)


def _commands(table: Mapping[str, Command]) -> list[Word]:
    return [(name, command.summary) for name, command in table.items() if not command.alias_of]


def _servers(options: Options) -> list[Word]:
    config = load(options.config)
    return [(name, str(config.address(name))) for name in config.names()]


def _sheds(options: Options) -> list[Word]:
    """Return the sheds of the server that is meant, and those that were seen elsewhere."""
    config = load(options.config)
    seen = {} if options.server else {name: entry.server for name, entry in config.sheds.items()}
    told = _asked("/api/sheds", "sheds", options)
    return sorted({**seen, **{str(shed["name"]): str(shed.get("status", "")) for shed in told}}.items())


def _images(options: Options) -> list[Word]:
    return sorted((str(image["name"]), "") for image in _asked("/api/images", "images", options) if image.get("name"))


def _sessions(shed: str, options: Options) -> list[Word]:
    return [(str(session["name"]), "") for session in _asked(f"/api/sheds/{shed}/sessions", "sessions", options)]


def _asked(target: str, key: str, options: Options) -> list[dict[str, object]]:
    """Return a list that the server tells; nothing when it does not run, or takes too long.

    A connection by ssh is never made for it.
    """
    address: Address = resolve(options.server, config=options.config)
    if address.ssh is not None:
        return []
    found: list[dict[str, object]] = []

    def ask(add: Callable[[Iterable[dict[str, object]]], None]) -> None:
        with contextlib.suppress(Exception):  # then there are no names
            add(http.request(address, "GET", target, start=False, timeout=_PATIENCE)[key])

    thread = threading.Thread(target=ask, args=(found.extend,), daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return found
