"""Small values of the files ``devcontainer.json`` and ``devcontainer-feature.json``, which anybody may have written."""

from __future__ import annotations

import re
from collections.abc import Mapping

from shed.untrusted import told

Options = Mapping[str, str]
"""Options of a feature by name; booleans are ``true`` and ``false``."""
MOST_TEXT = 4096
_MOST_OPTIONS = 100
_NO_WORD = re.compile(r"[^A-Za-z0-9_]")
_FIRST = re.compile(r"^[0-9_]+")


def text(value: object, what: str, most: int = MOST_TEXT) -> str:
    """Return `value` if it is a text without NUL, of `most` characters at most.  Raises `ValueError`."""
    if not isinstance(value, str) or "\0" in value or len(value) > most:
        raise ValueError(f"{what} is not a text of {most} characters at most")
    return value


def texts(value: object, what: str, most: int) -> tuple[str, ...]:
    """Return a list of texts.  Raises `ValueError`."""
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{what} is not a list of {most} texts at most")
    return tuple(text(each, what) for each in value)


def parse_options(value: object, what: str) -> dict[str, str]:
    """Return the options that a feature is given: an object, or a text, which is the option ``version``.

    Raises `ValueError`.
    """
    if isinstance(value, str):
        return {"version": text(value, what)}
    if value is None or value is True:
        return {}
    if not isinstance(value, dict) or len(value) > _MOST_OPTIONS:
        raise ValueError(f"{what} does not hold options")
    return {name: option(each, f"{what}: {told(name)}") for name, each in value.items()}


def option(value: object, what: str) -> str:
    """Return the value of an option as its script gets it.  Raises `ValueError`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return text(value, what)


def variable(name: str) -> str:
    """Return the environment variable that an option is given by."""
    return _FIRST.sub("_", _NO_WORD.sub("_", name)).upper()
