"""`shed completion`, and what its scripts ask: which words can stand where the cursor is.

A script for bash, zsh or fish calls ``shed __complete SHELL WORD...``.  The answer comes from the declarations of the
commands; a server is asked for names alone, and only when it runs.
"""

from __future__ import annotations

import io
import os
import sys

from shed.cli.app import SHED
from shed.cli.arguments import GLOBAL, HELP, argument
from shed.cli.command import Command, Group, command
from shed.cli.options import Options, take
from shed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from shed.cli.arguments import Argument
    from shed.cli.command import Entry

    Word = tuple[str, str]
    """A word that can stand there, and a description."""

BASH = """\
# Completion of shed for bash.  In ~/.bashrc:  source <(shed completion bash)
_shed() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} whole kind prefix word
    local -a answer
    mapfile -t answer < <(command shed __complete bash "$line" 2>/dev/null)
    kind=${answer[0]} whole=${line##*[[:space:]]}
    # bash takes '=' and ':' for ends of words, and wants what is behind them alone.
    [[ $current == [=:] ]] && current=
    prefix=${whole%"$current"}
    COMPREPLY=()
    for word in "${answer[@]:1}"; do
        word=${word%%$'\\t'*}
        COMPREPLY+=("${word#"$prefix"}")
    done
    [[ $kind == words || ${#COMPREPLY[@]} -gt 0 ]] || compopt -o filenames # it would put a backslash before a colon
    case $kind in
        files) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current") ;;
        folders) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$current") ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace
}
complete -F _shed shed
"""
ZSH = """\
#compdef shed
# Completion of shed for zsh.  In ~/.zshrc, behind compinit:  source <(shed completion zsh)
_shed() {
    local line name
    local -a answer names shown open
    answer=("${(@f)$(command shed __complete zsh "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    for line in "${(@)answer[2,-1]}"; do
        name=${line%%$'\\t'*}
        if [[ $name == *[=:] ]]; then open+=("$name"); continue; fi
        names+=("$name")
        shown+=("${line/$'\\t'/  -- }")
    done
    (( $#names )) && compadd -l -d shown -a names
    (( $#open )) && compadd -S '' -a open
    case $answer[1] in
        files) _files ;;
        folders) _files -/ ;;
    esac
}
if [[ $funcstack[1] == _shed ]]; then _shed "$@"; else compdef _shed shed; fi
"""
FISH = """\
# Completion of shed for fish.  Once:  shed completion fish > ~/.config/fish/completions/shed.fish
function __shed_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l answer (command shed __complete fish $words[2..-1] "$current" 2>/dev/null)
    for line in $answer[2..-1]
        echo $line
    end
    switch "$answer[1]"
        case files
            __fish_complete_path "$current"
        case folders
            __fish_complete_directories "$current"
    end
end
complete -c shed -f -a '(__shed_complete)'
"""
_SCRIPTS = {"bash": BASH, "fish": FISH, "zsh": ZSH}
_PATIENCE = 1.5
"""Seconds for a server to tell its names: the user is typing."""
_PLAIN = "_.:/@=-"
"""Characters, beside letters and digits, that mean nothing to a shell."""
_BY_HAND = "shed.cli.exec:"
"""Where the commands are that read their words themselves."""


class Found:
    """Words with descriptions, and whether the shell shall add ``files`` or ``folders``; plain ``words`` otherwise."""

    __slots__ = ("kind", "words")

    def __init__(self, words: Iterable[Word] = (), kind: str = "words") -> None:
        self.words = list(words)
        self.kind = kind


@command(
    "completion",
    argument("SHELL", "bash, fish or zsh", choices=tuple(_SCRIPTS)),
    examples=["source <(shed completion bash)", "shed completion fish > ~/.config/fish/completions/shed.fish"],
)
def completion(args: Any, options: Options) -> int:
    """Print the script with which a shell completes commands, options, and the names of sheds and images.

    The first lines of the script say where to put it.  Names come from a running server; none is started for them.
    """
    sys.stdout.write(_SCRIPTS[args.shell])
    return 0


def answer(words: list[str]) -> int:
    """Answer a script of a shell.

    The first line is ``files``, ``folders`` or ``words``; each of the others is a word, or a word, a tab and its
    description.  The arguments are the shell and the words up to the cursor, the last one unfinished; bash sends them
    as one line.  Nothing else is printed, whatever happens: the user is in the middle of typing.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        *before, current = split(words[1]) if words[0] == "bash" else words[1:]
        found = complete(before, current)
        lines = [found.kind, *("\t".join(filter(None, word)) for word in found.words)]
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    except Exception:  # noqa: BLE001  as it says above
        return 0
    return 0


def split(line: str) -> list[str]:
    """Return the words of a line that is not finished; the last one is what is being typed, perhaps nothing."""
    if not any(character in line for character in "'\"\\#"):
        words = line.split()
    else:
        import shlex

        for end in ("", "'", '"'):
            try:
                words = shlex.split(line + end)
                break
            except ValueError:
                continue
        else:
            return [""]
    return words[1:] if line and not line[-1].isspace() else [*words[1:], ""]


def complete(before: Sequence[str], current: str) -> Found:
    """Return what `current` can become behind the words `before`, the program's name aside."""
    options, words, group = Options(), list(before), SHED
    while True:
        try:
            while words and (count := take(words, options)):
                words = words[count:]
        except UsageError:  # the value of the last one is being typed
            return _of_global(words[0], current)
        entry = group.commands.get(words[0]) if words else None
        if entry is None and group.default is not None:
            return _of_command(group.default, words, current, options, first=group.commands)
        if entry is None:
            offered = _commands(group.commands) + (_options((*GLOBAL, HELP)) if current.startswith("-") else [])
            return Found() if words else _starting(current, offered)
        words = words[1:]
        if entry.target.startswith(_BY_HAND):
            return _of_exec(words, current, options)
        found = entry.load()
        if isinstance(found, Command):
            return _of_command(found, words, current, options)
        assert isinstance(found, Group)
        group = found


def _of_command(
    command: Command, words: list[str], current: str, options: Options, *, first: Mapping[str, Entry] | None = None
) -> Found:
    """Return what can stand behind the `words` of a command; the commands of `first` can stand in the first place."""
    by_name = command.by_name()
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
        one = by_name.get(name)
        if one is None or not one.value:
            continue
        if not equals:
            if index == len(words):
                return _starting(current, *_values(one, given, options))
            value = words[index]
            index += 1
        if one in GLOBAL:
            setattr(options, one.key, value)
    if current.startswith("-") and current != "-" and not only_words:
        name, equals, _ = current.partition("=")
        if equals:
            values, kind = _values(by_name[name], given, options) if name in by_name else ([], "words")
            return _starting(current, [(f"{name}={word}", text) for word, text in values], kind)
        return _starting(current, _options((*command.arguments, *GLOBAL, HELP)))
    places = command.places()
    commands = _commands(first) if first and not given else []
    if len(given) >= len(places) and not (places and places[-1].count in {"+", "*"}):
        return _starting(current, commands)
    values, kind = _values(places[min(len(given), len(places) - 1)], given, options)
    if len(given) >= len(places):
        values = [value for value in values if value[0] not in given]  # each of several once
    return _starting(current, commands + values, kind)


def _of_exec(words: list[str], current: str, options: Options) -> Found:
    """Return what can stand behind the words of exec and console, which read their words themselves."""
    from shed.cli import exec as by_hand

    try:
        request = by_hand.parse(words, options)
    except UsageError:  # the value of the last one is being typed
        return _of_global(words[-1], current)
    if request.command or "--" in words:
        return Found()
    if current.startswith("-"):
        names = [name for name in (*by_hand.OPTIONS, *by_hand.FLAGS) if name.startswith("--")]
        return _starting(current, [(name, "") for name in names] + _options((*GLOBAL, HELP)))
    return _starting(current, [] if request.name else _sheds(options))


def _values(one: Argument, given: list[str], options: Options) -> tuple[list[Word], str]:
    """Return what an argument can be, and what the shell shall add."""
    if one.choices:
        return [(choice, "") for choice in one.choices], "words"
    if one.offers in ("files", "folders"):
        return [], one.offers
    if one.offers == "places":
        return [(f"{name}:", text) for name, text in _sheds(options)], "files"
    if one.offers == "servers":
        return _servers(options), "words"
    if one.offers == "images":
        return _images(options), "words"
    if one.offers == "sessions":
        return (_sessions(given[0], options) if given else []), "words"
    return (_sheds(options) if one.offers == "sheds" else []), "words"


def _of_global(option: str, current: str) -> Found:
    """Return what the value of a global option can be."""
    if option in ("-s", "--server"):
        return _starting(current, _servers(Options()))
    return Found(kind="files" if option in ("-c", "--config") else "words")


def _starting(current: str, words: Iterable[Word], kind: str = "words") -> Found:
    """Return the words that begin with `current`.

    What a server calls a thing may not be a name, and a shell would take it apart: such words are left out.
    """
    from shed.text import visible

    fitting = ((word, text) for word, text in words if word.startswith(current) and _is_plain(word))
    return Found([(word, visible(" ".join(text.split()))) for word, text in fitting], kind)


def _is_plain(word: str) -> bool:
    return all(character in _PLAIN or (character.isascii() and character.isalnum()) for character in word)


def _commands(table: Mapping[str, Entry]) -> list[Word]:
    return [(name, entry.summary) for name, entry in table.items() if not entry.alias_of]


def _options(arguments: Iterable[Argument]) -> list[Word]:
    """Return the long names of the options."""
    return [(name, one.help) for one in arguments for name in one.names if name.startswith("--")]


def _servers(options: Options) -> list[Word]:
    from shed.client.config import load

    config = load(options.config)
    return [(name, str(config.address(name))) for name in config.names()]


def _sheds(options: Options) -> list[Word]:
    """Return the sheds of the server that is meant, and those that were seen elsewhere."""
    from shed.cli.connection import has_config

    seen = {}
    if has_config(options):
        from shed.client.config import load

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
    import threading

    from shed.client.config import resolve
    from shed.client.sync.requests import request

    address = resolve(options.server, config=options.config)
    if address.ssh is not None:
        return []
    found: list[dict[str, object]] = []

    def ask(add: Callable[[Iterable[dict[str, object]]], None]) -> None:
        try:
            add(request(address, "GET", target, start=False, timeout=_PATIENCE)[key])
        except Exception:  # noqa: BLE001  then there are no names
            return

    thread = threading.Thread(target=ask, args=(found.extend,), daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return found
