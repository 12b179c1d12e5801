"""What a project says in ``devcontainer.json``, as far as a shed does it: its commands, and its variables.

The file comes from a guest, and is read with suspicion: no text of the host gets into it, and nothing of it is run on
the host.  An image that was made by such a file has another one, with the commands of its features, which come before
the project's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from shed.devjson import fill, load
from shed.untrusted import told

ONCE = ("onCreateCommand", "updateContentCommand", "postCreateCommand")
"""What is run once, in this order."""
EACH_START = ("postStartCommand",)
_MOST_COMMANDS = 50
_MOST_FEATURES = 100
_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_QUIET = frozenset(
    ("$schema", "name", "customizations", "settings", "extensions", "shutdownAction", "overrideCommand", "init")
) | {"userEnvProbe", "updateRemoteUserUID", "waitFor", "portsAttributes", "otherPortsAttributes", "workspaceFolder"}
"""Keys that are for editors, or say what a shed does anyhow."""
_MACHINE = frozenset(("privileged", "capAdd", "securityOpt"))
"""Keys that give a container what a shed has, being a machine."""
_BUILD = "an image is made of it when you say so: shed create --devcontainer DIR"
_BUILT = {
    "image": _BUILD,
    "build": _BUILD,
    "dockerFile": _BUILD,
    "context": _BUILD,
    "features": _BUILD,
    "overrideFeatureInstallOrder": _BUILD,
    "remoteUser": "commands run as the user of the image; shed create --devcontainer DIR makes one for that user",
    "containerUser": "commands run as the user of the image; shed create --devcontainer DIR makes one for that user",
    "forwardPorts": "they are forwarded when you say so: shed forward, shed open",
    "hostRequirements": "choose them yourself: --cpus, --memory, --upper-size; --devcontainer DIR does it",
}
"""What is done, or told, where the image was made of such a file."""
_NOT_DONE = {
    "dockerComposeFile": "start it by a hook, in the image full",
    "initializeCommand": "it is for your machine, where nothing of a project is run",
    "postAttachCommand": "nothing is run when you connect",
    "mounts": "a shed has the folders that you name: --local-dir, --mount",
    "workspaceMount": "a shed has the folders that you name: --local-dir, --mount",
    "runArgs": "there is no container engine that would take them",
    "appPort": "ports are published when you say so: -p",
    "secrets": "a shed has those that you name: --secret",
}


def parse(text: bytes, image: bytes | None = None) -> tuple[dict[str, dict[str, str]], dict[str, str], list[str]]:
    """Return the commands of each lifecycle key, by name and in order, variables, and what is not done, in sentences.

    `image` is what the image says of its features, if it was made by such a file.  Raises `ValueError`.
    """
    document = load(text)
    notes = [f"{told(key)}: {why}" for key in document if (why := _why_not(key, made=image is not None))]
    features = _features(image)
    commands: dict[str, dict[str, str]] = {}
    for key in (*ONCE, *EACH_START):
        found = {f"{key}.{name}": _line(key, feature.get(key), notes) for name, feature in features.items()}
        found[key] = _line(key, document.get(key), notes)
        commands[key] = {name: line for name, line in found.items() if line}
    variables = {}
    for key, each in ((key, each) for each in (*features.values(), document) for key in ("containerEnv", "remoteEnv")):
        members = each.get(key) or {}
        if not isinstance(members, dict):
            raise ValueError(f"{key} does not hold keys and values")
        for name, value in members.items():
            if value is None:
                continue
            if not isinstance(value, str):
                raise ValueError(f"{key}: {told(name)} is not a text")
            filled, unknown = fill(value)
            if unknown and image is not None and all(what.startswith("localEnv:") for what in unknown):
                continue  # whoever made the image has told, or given it
            if unknown:
                notes.append(f"{key}: {told(name)}: it names variables of another place, which are not known here")
            else:
                variables[name] = filled
    return commands, variables, notes


def _features(image: bytes | None) -> dict[str, dict[str, Any]]:
    """Return what the features of an image say, by names that a file can have."""
    found = [] if image is None else load(image).get("metadata")
    if not isinstance(found, list) or len(found) > _MOST_FEATURES or not all(isinstance(each, dict) for each in found):
        raise ValueError("the image does not say what its features are")
    names = (_NAME.sub("-", str(each.get("id", "")).rpartition("/")[2])[:40] for each in found)
    return {f"{number}-{name}": each for number, (name, each) in enumerate(zip(names, found, strict=True), 1)}


def _why_not(key: str, *, made: bool) -> str:
    if key in _QUIET or key in _MACHINE or key in {*ONCE, *EACH_START, "containerEnv", "remoteEnv"}:
        return ""
    if key in _BUILT:
        return "" if made else _BUILT[key]
    return _NOT_DONE.get(key, "it means nothing here")


def _line(key: str, value: Any, notes: list[str]) -> str:
    """Return the command line of a lifecycle command; of several, one that runs them one after the other."""
    words = []
    for each in _commands(key, value):
        filled, unknown = fill(each)
        if any(":" in name for name in unknown):
            notes.append(f"{key}: it names variables of another place, which are not known here")
        words.append(filled)
    return words[0] if len(words) == 1 else " && ".join(f"sh -c {shlex.quote(each)}" for each in words)


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
