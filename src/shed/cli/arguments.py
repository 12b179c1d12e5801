"""What a command can take: positional arguments, options with a value, and flags, as data."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_OFFERS = {
    "FILE": "files",
    "DIR": "folders",
    "DIR[:MODE]": "folders",
    "CONTEXT": "folders",
    "IMAGE": "images",
    "SERVER": "servers",
}
"""What completion offers for a value by its name, unless the argument says otherwise."""


class Argument:
    """One argument of a command: a positional one, an option with a value, or a flag."""

    __slots__ = (
        "choices",
        "convert",
        "count",
        "default",
        "help",
        "key",
        "names",
        "offers",
        "once",
        "repeat",
        "required",
        "value",
    )

    def __init__(
        self,
        names: str,
        value: str,
        help: str,  # noqa: A002  the usual word
        *,
        key: str | None = None,
        count: str = "",
        convert: Callable[[str], Any] | None = None,
        default: Any = None,
        choices: Sequence[str] = (),
        required: bool = False,
        repeat: bool = False,
        once: bool = False,
        offers: str | None = None,
    ) -> None:
        self.names = tuple(names.split(", ")) if names else ()
        """How an option or flag is written: ``-f``, ``--force``; empty for a positional argument."""
        self.value = value
        """What the value is called in the help; empty for a flag."""
        self.help = help
        self.key = key or (self.names[-1].lstrip("-").replace("-", "_") if names else value.lower())
        """The attribute that the command's function reads."""
        self.count = count
        """How many a positional argument takes: one, ``?`` one at most, ``+`` one at least, ``*`` any number.

        ``rest``: all words from its first one on, whatever they look like.
        """
        self.convert = convert
        """Turns the text into the value, or raises a `ShedError`."""
        self.default = [] if repeat else False if names and not value else default
        self.choices = choices
        self.required = required
        self.repeat = repeat
        """Whether an option may be given several times; its value is a list then."""
        self.once = once
        """Whether a second value is refused; for others the last one counts."""
        self.offers = _OFFERS.get(value, "") if offers is None else offers
        """What completion offers: sheds, images, servers, sessions, files, folders, places (files, or sheds)."""

    def __str__(self) -> str:
        """Return what an error message calls it."""
        return self.names[-1] if self.names else self.value


def argument(value: str, help: str, **more: Any) -> Argument:  # noqa: A002  as above
    """Return a positional argument that the help calls `value`."""
    return Argument("", value, help, **more)


def option(names: str, value: str, help: str, **more: Any) -> Argument:  # noqa: A002  as above
    """Return an option with a value: ``option("-i, --image", "IMAGE", "name or digest")``."""
    return Argument(names, value, help, **more)


def flag(names: str, help: str) -> Argument:  # noqa: A002  as above
    """Return an option without a value; the command's function sees True or False."""
    return Argument(names, "", help)


SHED = argument("NAME", "name of the shed", offers="sheds")
HELP = flag("-h, --help", "show this help")
VERBOSE = flag("-v, --verbose", "say more; -vv even more")
GLOBAL = (
    flag("--json", "write JSON, and nothing else, to standard output"),
    VERBOSE,
    option("-s, --server", "SERVER", "configured name, local, unix:///path, http://host:port, or ssh://host"),
    option("-c, --config", "FILE", "client configuration (default: ~/.shed/config.yaml)"),
)
"""The options of every command.  `shed.cli.options` takes them from before the command's name."""
