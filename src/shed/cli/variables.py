"""Environment variables in the words of a command: ``-e KEY[=VALUE]`` and ``--env-file FILE``."""

from __future__ import annotations

import os

from shed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def given(args: Any) -> dict[str, str] | None:
    """Return the variables that ``--env-file`` and ``--env`` name, None for none; the latter win.

    Raises `UsageError`.
    """
    found = [text for path in args.env_file for text in read_variables(path)]
    found += [text for word in args.env for text in variable(word, f"--env {word}")]
    for text in found:
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # how Python has bytes that are no UTF-8
            raise UsageError(
                f"the value of {text.partition('=')[0]} is not UTF-8 text", hint="set it in the shed, from a file"
            )
    return {key: value for key, _, value in (text.partition("=") for text in found)} or None


def variable(text: str, what: str) -> list[str]:
    """Return ``KEY=VALUE`` for that or for a KEY of our own environment; nothing when it is not set there.

    `what` names the text in an error.  Raises `UsageError`.
    """
    key, equals, _ = text.partition("=")
    if not key or any(letter.isspace() for letter in key):
        raise UsageError(f"{what} is not KEY=VALUE", hint="write KEY=VALUE, or KEY for its value here")
    if equals:
        return [text]
    value = os.environ.get(key)
    return [] if value is None else [f"{key}={value}"]


def read_variables(path: str) -> list[str]:
    """Return the variables in a file, as docker reads it: nothing in it is quoted or replaced.  Raises `UsageError`."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip("\r\n").lstrip() for line in file]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the path") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint="a line is KEY=VALUE or KEY") from None
    return [
        found
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
        for found in variable(line, f"{path}, line {number}")
    ]
