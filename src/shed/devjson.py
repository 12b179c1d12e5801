"""The file ``devcontainer.json`` as a text: where it is, its comments, and its variables.

Source: https://containers.dev/implementors/json_reference/.  Who wrote it may be hostile: a project, or a guest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shed.untrusted import load_object

FILES = (".devcontainer/devcontainer.json", ".devcontainer.json")
"""The first of these in a project counts."""
MOST_FILE = 64 << 10
METADATA = "/usr/share/shed/devcontainer.json"
"""The file of an image with what the features in it say; who has it was made by a project's ``devcontainer.json``."""
LIFECYCLE = ("onCreateCommand", "updateContentCommand", "postCreateCommand", "postStartCommand", "postAttachCommand")
_MOST_DEPTH = 16
_FOLDER = "/workspace"
"""Where a shed has a project; no path of the host is told."""
_TEXT = r'"(?:\\.|[^"\\])*(?:"|\\?\Z)'
"""One that is not closed goes to the end: else each of its marks would be looked at again."""
_TOKEN = re.compile(_TEXT + r"|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_COMMA = re.compile(_TEXT + r"|,(?=\s*[}\]])", re.DOTALL)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_KNOWN = {
    "containerWorkspaceFolder": _FOLDER,
    "localWorkspaceFolder": _FOLDER,
    "containerWorkspaceFolderBasename": _FOLDER.lstrip("/"),
    "localWorkspaceFolderBasename": _FOLDER.lstrip("/"),
}


def load(text: bytes) -> dict[str, Any]:
    """Return the object that JSON with comments, and with commas behind the last member, holds.

    Raises `ValueError`, also for more than `MOST_FILE` bytes.
    """
    if len(text) > MOST_FILE:
        raise ValueError(f"it has more than {MOST_FILE >> 10} KiB")
    return load_object(as_json(text.decode()).encode(), most=2 * MOST_FILE, depth=_MOST_DEPTH)


def as_json(text: str) -> str:
    """Return JSON with comments, and commas behind the last member, as JSON."""
    without = _TOKEN.sub(lambda found: found[0] if found[0].startswith('"') else " ", text)
    return _COMMA.sub(lambda found: found[0] if found[0].startswith('"') else " ", without)


def fill(text: str, local: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """Return `text` with its variables put in, and the names of those that are not known, which it keeps.

    `local` are the variables of this machine that the project may read; of any other the default is taken.
    """
    unknown: list[str] = []

    def value(found: re.Match[str]) -> str:
        kind, _, rest = found[1].partition(":")
        name, colon, default = rest.partition(":")
        if kind == "localEnv" and local and name in local:
            return local[name]
        if kind == "localEnv" and colon:
            return default
        if found[1] not in _KNOWN:
            unknown.append(found[1])
        return _KNOWN.get(found[1], found[0])

    return _VARIABLE.sub(value, text), unknown


def local_names(value: object) -> set[str]:
    """Return the variables of this machine that the texts in a value of JSON name."""
    if isinstance(value, str):
        words = (each.split(":") for each in _VARIABLE.findall(value))
        return {word[1] for word in words if word[0] == "localEnv" and len(word) > 1}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for each in inner for name in local_names(each)}
