"""What each command takes, as data.  Parsing, help, completion and the reference page all read it from here.

A module of commands declares them and imports what does their work inside their functions.  So help and completion
need neither that work nor argparse, whose import and set-up take longer than most commands themselves.
"""

from __future__ import annotations

import sys

from shed.cli.arguments import GLOBAL, HELP, VERBOSE, Argument
from shed.cli.options import Options, take_all
from shed.errors import ShedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Run = Callable[[Any, Options], int]


class Arguments:
    """What the words of one call mean: an attribute for the key of each argument."""


class Command:
    """A command: what it takes, and the function that does it.  Calling it parses its words first.

    The docstring of the function is the description in the help.
    """

    def __init__(self, name: str, arguments: Sequence[Argument], examples: Sequence[str], run: Run) -> None:
        self.name = name
        """The words that call it: ``image build``."""
        self.arguments = arguments
        self.examples = examples
        self.about = [" ".join(paragraph.split()) for paragraph in (run.__doc__ or "").split("\n\n")]
        """Paragraphs that say what it does."""
        self.run = run

    def __call__(self, words: list[str], options: Options) -> int:
        """Do what `words` ask for and return the exit code.  Raises `UsageError` for words that are wrong."""
        arguments = self.parse(words, options)
        if arguments is None:
            from shed.cli.help import of_command

            sys.stdout.write(of_command(self))
            return 0
        return self.run(arguments, options)

    def parse(self, words: list[str], options: Options) -> Any:
        """Return what `words` mean, or None when they ask for help; the global options among them go to `options`.

        Raises `UsageError`.
        """
        end = words.index("--") if "--" in words else len(words)
        places = self.places()
        has_rest = bool(places) and places[-1].count == "rest"
        if not has_rest:
            options.json = options.json or "--json" in words[:end]  # also for the errors of the words before it
        found = Arguments()
        for one in self.arguments:
            setattr(found, one.key, [] if one.repeat else one.default)
        by_name = self.by_name()
        given: list[str] = []
        missing = {one.key: one for one in self.arguments if one.required}
        index = 0
        while index < end:
            word = words[index]
            index += 1
            if word[:1] != "-" or word == "-":
                given.append(word)
                if has_rest and len(given) == len(places):
                    given += words[index:]
                    end = len(words)
                    break
                continue
            for one, text in self._split(word, by_name):
                if one is HELP:
                    return None
                if one.value and text is None:
                    if index >= end or _is_option(words[index]):
                        raise self._wrong(f"{_named(word, one)} needs a value: {one.value}")
                    text = words[index]  # noqa: PLW2901  it is the value of the option before it
                    index += 1
                missing.pop(one.key, None)
                if one in GLOBAL:
                    _set_global(one, text, options)
                else:
                    self._set(found, one, text)
        self._place(found, given + words[end + 1 :])
        if missing:
            names = " and ".join(f"{one} {one.value}" for one in missing.values())
            raise self._wrong(f"shed {self.name} needs {names}")
        return found

    def by_name(self) -> dict[str, Argument]:
        """Return the options and flags by each of their names, the global ones too, where they are no others."""
        return {name: one for one in (*GLOBAL, HELP, *self.arguments) for name in one.names}

    def places(self) -> list[Argument]:
        """Return the positional arguments."""
        return [one for one in self.arguments if not one.names]

    def _split(self, word: str, by_name: Mapping[str, Argument]) -> list[tuple[Argument, str | None]]:
        """Return the options that one word holds, each with the value in that word: ``--name=X``, ``-nX``, ``-lR``."""
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            one = by_name.get(name)
            if one is None:
                raise self._unknown(name, by_name)
            if equals and not one.value:
                raise self._wrong(f"{name} takes no value")
            return [(one, value if equals else None)]
        found: list[tuple[Argument, str | None]] = []
        for index in range(1, len(word)):
            one = by_name.get(f"-{word[index]}")
            if one is None:
                raise self._unknown(word, by_name)
            if one.value:
                rest = word[index + 1 :]
                return [*found, (one, rest.removeprefix("=") if rest else None)]
            found.append((one, None))
        return found

    def _place(self, found: Arguments, given: list[str]) -> None:
        """Give the words that are no options to the positional arguments, in their order."""
        places = self.places()
        for index, one in enumerate(places):
            later = sum(other.count != "?" for other in places[index + 1 :])
            if one.count in {"*", "rest"} or (one.count == "+" and given):
                end = max(int(one.count == "+"), len(given) - later)
                setattr(found, one.key, [self._value(one, text) for text in given[:end]])
                given = given[end:]
            elif one.count == "?":
                if len(given) > later:
                    setattr(found, one.key, self._value(one, given.pop(0)))
            elif given:
                setattr(found, one.key, self._value(one, given.pop(0)))
            else:
                raise self._wrong(f"shed {self.name} needs {one.value}")
        if given:
            raise self._wrong(f"unexpected argument {given[0]!r}")

    def _set(self, found: Arguments, one: Argument, text: str | None) -> None:
        value = True if text is None else self._value(one, text)
        if one.once and getattr(found, one.key) is not None:
            raise self._wrong(f"{one} can be given only once")
        if one.repeat:
            getattr(found, one.key).append(value)
        else:
            setattr(found, one.key, value)

    def _value(self, one: Argument, text: str) -> Any:
        if one.choices and text not in one.choices:
            raise self._wrong(f"{one} must be {_one_of(one.choices)}, not {text!r}")
        if one.convert is None:
            return text
        try:
            return one.convert(text)
        except ShedError as error:
            raise UsageError(f"{one}: {error.message}", hint=error.hint or self._see()) from None

    def _unknown(self, word: str, by_name: Mapping[str, Argument]) -> UsageError:
        import difflib

        near = difflib.get_close_matches(word, by_name, n=1, cutoff=0.75) if word.startswith("--") else []
        return self._wrong(f"unknown option {word}", f"did you mean {near[0]}?" if near else None)

    def _wrong(self, message: str, hint: str | None = None) -> UsageError:
        return UsageError(message, hint=hint or self._see())

    def _see(self) -> str:
        return f"see: shed {self.name} --help"


def command(name: str, *arguments: Argument, examples: Sequence[str] = ()) -> Callable[[Run], Command]:
    """Make a function the command that is called by the words `name`; its docstring becomes the help's description."""
    return lambda run: Command(name, arguments, examples, run)


class Entry:
    """A command in a table: ``module:attribute`` that is called with the words and the options, and a summary."""

    __slots__ = ("alias_of", "summary", "target")

    def __init__(self, target: str, summary: str, alias_of: str | None = None) -> None:
        self.target = target
        self.summary = summary
        self.alias_of = alias_of

    def load(self) -> Callable[[list[str], Options], int]:
        """Import the command: a `Command`, a `Group`, or a function that reads its words itself."""
        module, _, attribute = self.target.partition(":")
        __import__(module)
        loaded: Callable[[list[str], Options], int] = getattr(sys.modules[module], attribute)
        return loaded


class Group:
    """A table of commands: ``shed image``, or ``shed`` itself, whose name is empty.

    `default` is what runs when none of them is named; without it that shows the help.
    """

    def __init__(self, name: str, about: str, commands: dict[str, Entry], default: Command | None = None) -> None:
        self.name = name
        self.about = about
        self.commands = commands
        self.default = default

    def __call__(self, words: list[str], options: Options) -> int:
        """Run the command that `words` start with and return its exit code.  Raises `UsageError` when there is none."""
        words = take_all(words, options)
        entry = self.commands.get(words[0]) if words else None
        if entry is not None:
            return entry.load()(words[1:], options)
        if self.default is not None:
            return self.default(words, options)
        if words and words[0] not in ("-h", "--help", "help"):
            options.json = options.json or "--json" in words
            raise self._unknown(words[0])
        if len(words) > 1 and words[0] == "help":
            return self([*words[1:], "--help"], options)
        from shed.cli.help import of_group

        sys.stdout.write(of_group(self))
        return 0

    @property
    def prefix(self) -> str:
        """What stands before a command's name in a call, after ``shed``."""
        return f"{self.name} " if self.name else ""

    def _unknown(self, word: str) -> UsageError:
        import difflib

        see = f"see: shed {self.prefix}--help"
        if word.startswith("-"):
            return UsageError(f"unknown option {word}", hint=see)
        other = _OTHER_WORDS.get(word)
        near = [other] if other in self.commands else difflib.get_close_matches(word, self.commands, n=1)
        hint = f"did you mean: shed {self.prefix}{near[0]}" if near else see
        if not self.name and word in _OF_THE_SERVER:
            hint = f"did you mean: shed-server {word}"
        return UsageError(f"unknown command {self.prefix + word!r}", hint=hint)


_OTHER_WORDS = {
    "delete": "rm", "remove": "rm", "destroy": "rm", "ps": "ls", "show": "inspect", "info": "inspect",
    "inspect": "info", "shell": "console", "ssh": "console", "enter": "console", "new": "create",
    "up": "start", "down": "stop", "kill": "stop", "images": "image", "snapshots": "snapshot", "secrets": "secret",
    "export": "save", "import": "load",
}  # fmt: skip
"""What commands are called elsewhere, in other tools or in another group of ours."""
_OF_THE_SERVER = frozenset({"doctor", "serve", "install", "uninstall", "config-validate", "pull-images", "warm"})
"""Commands of the other program."""


def _is_option(word: str) -> bool:
    """Say whether a word after an option is the next option; a negative number is a value, if a wrong one."""
    return len(word) > 1 and word[0] == "-" and not word[1].isdigit()


def _named(word: str, one: Argument) -> str:
    """Return an option as the user has written it."""
    return word if word in one.names else str(one)


def _one_of(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def _set_global(one: Argument, text: str | None, options: Options) -> None:
    if one is VERBOSE:
        options.verbose += 1
    elif text is None:
        options.json = True
    else:
        setattr(options, one.key, text or getattr(options, one.key))
