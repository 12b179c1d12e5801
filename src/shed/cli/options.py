"""The options that every command has, before or after its name.

Imports next to nothing: `exec` comes here too.
"""

from __future__ import annotations

from shed.errors import UsageError


class Options:
    """The values of the global options."""

    __slots__ = ("config", "json", "json_lines", "server", "verbose")

    def __init__(self) -> None:
        self.json = False
        """Whether to write JSON, and nothing else, to standard output."""
        self.json_lines = False
        """Whether each object goes on a line of its own, because several are written."""
        self.verbose = 0
        self.server: str | None = None
        """URL, or configured name, of the server to use."""
        self.config: str | None = None
        """File to read the client configuration from, instead of ~/.shed/config.yaml."""


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
