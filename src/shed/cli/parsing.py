"""Parsing of one command's words, and of the sizes and times in them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from shed.cli.options import Described, Options
from shed.errors import ShedError, UsageError
from shed.sizes import parse_memory, parse_size

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class Parser(argparse.ArgumentParser):
    """The parser of one command: errors are `UsageError`, the global options are understood, nothing is abbreviated."""

    def __init__(self, command: str, description: str, *, examples: Sequence[str] = ()) -> None:
        super().__init__(
            prog=f"shed {command}",
            description=description,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        group = self.add_argument_group("global options")
        group.add_argument(
            "--json", action="store_true", help="machine output on standard output, and nothing else there"
        )
        group.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv even more")
        group.add_argument(
            "-s",
            "--server",
            metavar="SERVER",
            help="configured name, local, unix:///path, http://host:port, ssh://host",
        )
        group.add_argument("-c", "--config", metavar="FILE", help="client configuration (default: ~/.shed/config.yaml)")

    def error(self, message: str) -> NoReturn:
        """Raise the problem instead of ending the process."""
        raise UsageError(message, hint=f"see: {self.prog} --help")

    def parse(self, words: list[str], options: Options) -> Any:
        """Return the command's arguments; the global options among them go to `options`."""
        if options.describe:
            raise Described(self)
        end = words.index("--") if "--" in words else len(words)
        options.json = options.json or "--json" in words[:end]  # before anything can be wrong with them
        found = self.parse_args(words)
        options.verbose += found.verbose
        options.server = found.server or options.server
        options.config = found.config or options.config
        return found


def _argument(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make the errors of `convert` errors of the option that it is the type of."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ShedError as error:
            raise argparse.ArgumentTypeError(f"{error}{'; ' + error.hint if error.hint else ''}") from None

    return converted


def parse_duration(text: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``10m`` or ``1.5h`` stands for.  Raises `UsageError`."""
    match = _DURATION.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not a time", hint="write a number and a unit: 90s, 10m, 1h")
    return float(match[1]) * _SECONDS[match[2]]


def parse_count(text: str) -> int:
    """Return the number that `text` is, 1 at least.  Raises `UsageError`."""
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"{text!r} is not a whole number above 0")


def parse_number(text: str) -> int:
    """Return the number that `text` is, which can be 0.  Raises `UsageError`."""
    if text.isascii() and text.isdigit():
        return int(text)
    raise UsageError(f"{text!r} is not a whole number")


def parse_port(text: str) -> int:
    """Return the TCP port that `text` is.  Raises `UsageError`."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise UsageError(f"{text!r} is not a port, from 1 to 65535")


size = _argument(parse_size)
memory = _argument(parse_memory)
duration = _argument(parse_duration)
count = _argument(parse_count)
number = _argument(parse_number)
port = _argument(parse_port)
