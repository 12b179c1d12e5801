"""How an image wants its commands to be run: what a shed takes of the ``config`` object of the image's config.

Env, User and WorkingDir are taken; Entrypoint and Cmd are not, since a shed is a machine and not one command.  All of
it comes from outside: what is not of the right type, or cannot be given to a program, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MOST_TEXT = 64 << 10
"""Bytes of one variable; Linux takes 128 KiB."""
_MOST_VARIABLES = 1000


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Defaults of commands: empty where the image says nothing."""

    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    """A name or number, maybe with a group behind a colon."""
    folder: str = ""
    """Absolute."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ImageSettings:
        """Return what `config` says."""
        lines = config.get("Env")
        usable = [line for line in lines[:_MOST_VARIABLES] if _usable(line)] if isinstance(lines, list) else []
        pairs = [line.partition("=") for line in usable]
        folder = _text(config.get("WorkingDir"))
        return cls(
            {key: value for key, equals, value in pairs if key and equals},
            _text(config.get("User")),
            folder if folder.startswith("/") else "",
        )


def _usable(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and len(value) <= _MOST_TEXT


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) and _usable(value) else ""
