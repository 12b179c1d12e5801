"""The options that every command has, before or after its name.  Imports nothing: `exec` reads them on its way."""

from __future__ import annotations

from shed.errors import UsageError


class Described(Exception):  # noqa: N818  not an error
    """Carries out of a command what it would have understood its words by: a table of commands, or a parser."""

    def __init__(self, found: object) -> None:
        super().__init__()
        self.found = found


class Options:
    """What the global options ask for."""

    __slots__ = ("config", "describe", "json", "server", "verbose")

    def __init__(self) -> None:
        self.json = False
        """Machine output, and nothing else, on standard output."""
        self.verbose = 0
        self.server: str | None = None
        """URL or configured name of the server to use."""
        self.config: str | None = None
        """Client configuration to read instead of the usual one."""
        self.describe = False
        """Do nothing: raise `Described`, for completion and the reference page."""


def refuse_server(
    options: Options, command: str, hint: str = "add `-s local`, or run it on that server's machine"
) -> None:
    """Raise `UsageError` when another server is meant, by whatever, for a command that works on the store of this machine alone."""
    from shed.client.address import local  # noqa: PLC0415  few commands ask
    from shed.client.config import resolve  # noqa: PLC0415  few commands ask

    meant = resolve(options.server, config=options.config)
    if meant.path != local().path:
        raise UsageError(
            f"{command} works on the image store of this machine, so it cannot use the server {meant}", hint=hint
        )


_WITH_VALUE = {"-s": "server", "--server": "server", "-c": "config", "--config": "config"}


def take(words: list[str], options: Options) -> int:
    """Note the global option that `words` starts with.

    Return how many words it is, 0 when they start with something else.
    """
    word = words[0]
    name, equals, value = word.partition("=")
    if word == "--json":
        options.json = True
        return 1
    if word == "--verbose":
        options.verbose += 1
        return 1
    if word[:2] == "-v" and not word.strip("-v"):
        options.verbose += len(word) - 1
        return 1
    if name in _WITH_VALUE and name.startswith("--") and equals:
        setattr(options, _WITH_VALUE[name], value)
        return 1
    if word in _WITH_VALUE:
        if len(words) < 2:
            raise UsageError(f"option {word} needs a value", hint="see: shed --help")
        setattr(options, _WITH_VALUE[word], words[1])
        return 2
    if word[:2] in _WITH_VALUE and not word.startswith("--"):
        setattr(options, _WITH_VALUE[word[:2]], word[2:])
        return 1
    return 0


def take_all(words: list[str], options: Options) -> list[str]:
    """Note all global options that `words` starts with; return the words behind them."""
    start = 0
    while start < len(words) and (count := take(words[start:], options)):
        start += count
    return words[start:]
