"""What a project says in ``devcontainer.json``, as far as a shed does it: its commands, and its variables.

Source: https://containers.dev/implementors/json_reference/.  The file comes from a guest, and is read with suspicion:
no text of the host gets into it, and nothing of it is run on the host.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from shed.sheds.workspace import TARGET
from shed.untrusted import load_object, told

FILES = (".devcontainer/devcontainer.json", ".devcontainer.json")
ONCE = ("onCreateCommand", "updateContentCommand", "postCreateCommand")
"""What is run once, in this order."""
EACH_START = ("postStartCommand",)
MOST_FILE = 64 << 10
_MOST_COMMANDS = 50
_TEXT = r'"(?:\\.|[^"\\])*(?:"|\\?\Z)'
"""One that is not closed goes to the end: else each of its marks would be looked at again."""
_TOKEN = re.compile(_TEXT + r"|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_COMMA = re.compile(_TEXT + r"|,(?=\s*[}\]])", re.DOTALL)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_KNOWN = {
    "containerWorkspaceFolder": TARGET,
    "localWorkspaceFolder": TARGET,
    "containerWorkspaceFolderBasename": TARGET.lstrip("/"),
    "localWorkspaceFolderBasename": TARGET.lstrip("/"),
}
_QUIET = frozenset(
    ("$schema", "name", "customizations", "settings", "extensions", "shutdownAction", "overrideCommand", "init")
) | {"userEnvProbe", "updateRemoteUserEnv", "waitFor", "portsAttributes", "otherPortsAttributes", "workspaceFolder"}
"""Keys that are for editors, or say what a shed does anyhow."""
_NOT_DONE = {
    "image": "a shed is made of the image that you name: --image",
    "build": "build it, and make the shed of that: shed image build",
    "dockerFile": "build it, and make the shed of that: shed image build",
    "dockerComposeFile": "start it by a hook, in the image full",
    "features": "put what they install into the image, or into a command",
    "initializeCommand": "it is for your machine, where nothing of a project is run",
    "postAttachCommand": "nothing is run when you connect",
    "remoteUser": "commands run as the user of the image",
    "containerUser": "commands run as the user of the image",
    "mounts": "a shed has the folder that you name: --local-dir",
    "workspaceMount": "a shed has the folder that you name: --local-dir",
    "forwardPorts": "they are forwarded when you say so: shed forward, shed open",
    "appPort": "ports are published when you say so: -p",
    "hostRequirements": "choose them yourself: --cpus, --memory, --upper-size",
    "secrets": "a shed has those that you name: --secret",
}


def parse(text: bytes) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return commands by their keys, variables, and a sentence for each thing that is not done.

    Raises `ValueError`.
    """
    if len(text) > MOST_FILE:
        raise ValueError(f"it has more than {MOST_FILE >> 10} KiB")
    document = load_object(_as_json(text.decode()).encode(), most=2 * MOST_FILE)
    notes = [f"{told(key)}: {why}" for key in document if (why := _why_not(key))]
    commands = {}
    for key in (*ONCE, *EACH_START):
        if words := [_filled(key, each, notes) for each in _commands(key, document.get(key))]:
            commands[key] = words[0] if len(words) == 1 else " && ".join(f"sh -c {shlex.quote(each)}" for each in words)
    variables = {}
    for key in ("containerEnv", "remoteEnv"):
        found = document.get(key) or {}
        if not isinstance(found, dict):
            raise ValueError(f"{key} does not hold keys and values")
        for name, value in found.items():
            if value is None:
                continue
            if not isinstance(value, str):
                raise ValueError(f"{key}: {told(name)} is not a text")
            filled = _filled(f"{key}: {told(name)}", value, notes)
            if not _VARIABLE.search(filled):
                variables[name] = filled
    return commands, variables, notes


def _as_json(text: str) -> str:
    """Return JSON with comments, and commas behind the last member, as JSON."""
    without = _TOKEN.sub(lambda found: found[0] if found[0].startswith('"') else " ", text)
    return _COMMA.sub(lambda found: found[0] if found[0].startswith('"') else " ", without)


def _why_not(key: str) -> str:
    if key in _QUIET or key in {*ONCE, *EACH_START, "containerEnv", "remoteEnv"}:
        return ""
    return _NOT_DONE.get(key, "it means nothing here")


def _commands(key: str, value: Any) -> Iterator[str]:
    """Yield the command lines of a lifecycle command: a text, a list of words, or several of these by names."""
    if value is None or value in ("", []):
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(word, str) for word in value):
        yield shlex.join(value)
    elif isinstance(value, dict) and len(value) <= _MOST_COMMANDS:
        for name, each in value.items():
            if isinstance(each, dict):
                raise ValueError(f"{key}: {told(name)} is not a command")
            yield from _commands(f"{key}: {told(name)}", each)
    else:
        raise ValueError(f"{key} is not a command")


def _filled(what: str, text: str, notes: list[str]) -> str:
    """Return `text` with the variables of the specification that a shed knows; note those that it does not."""
    filled = _VARIABLE.sub(lambda found: _KNOWN.get(found[1], found[0]), text)
    if any(":" in name for name in _VARIABLE.findall(filled)):
        notes.append(f"{what}: it names variables of another place, which are not known here")
    return filled
