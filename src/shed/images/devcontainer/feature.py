"""A feature: what its ``devcontainer-feature.json`` says, and what was asked of it.

Source: https://containers.dev/implementors/features/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shed import devjson
from shed.errors import UsageError
from shed.images.devcontainer.values import Options, option, parse_options, text, texts, variable
from shed.oci.digest import Digest
from shed.untrusted import told

METADATA = "devcontainer-feature.json"
SCRIPT = "install.sh"
_MOST_RELATED = 100
_MOST_VARIABLES = 100
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEPT = (*devjson.LIFECYCLE, "mounts", "entrypoint", "customizations", "init", "privileged", "capAdd", "securityOpt")
"""What counts when a shed of the image is started, or an editor opens it."""
_NOT_DONE = {
    "entrypoint": "it is not started: a shed has an init of its own; start it by postStartCommand",
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a feature says of itself."""

    id: str
    version: str = ""
    defaults: Options = field(default_factory=dict)
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For options with a strict list of values, that list."""
    env: Options = field(default_factory=dict)
    """Variables of the image, as of its own script."""
    depends_on: Mapping[str, Options] = field(default_factory=dict)
    installs_after: tuple[str, ...] = ()
    legacy_ids: tuple[str, ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)
    """What the image notes of it."""
    notes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Metadata:
        """Return what the file holds.  Raises `ValueError`."""
        document = devjson.load(data)
        name = document.get("id")
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise ValueError("it has no id that a feature can have")
        declared = _object(document, "options")
        depends = _object(document, "dependsOn")
        env = _object(document, "containerEnv")
        for key, value in env.items():
            if not _VARIABLE.fullmatch(key) or not isinstance(value, str) or "\n" in value or "\r" in value:
                raise ValueError(f"containerEnv: {told(key)} is not a variable with a text of one line")
        details = {key: _object(declared, key) for key in declared}
        notes = [f"{key}: {why}" for key, why in _NOT_DONE.items() if document.get(key)]
        if document.get("deprecated") is True:
            notes.append("it is deprecated")
        return cls(
            id=name,
            version=text(document.get("version", ""), "version", 100),
            defaults={
                key: option(
                    each.get("default", "false" if each.get("type") == "boolean" else ""), f"options: {told(key)}"
                )
                for key, each in details.items()
            },
            allowed={
                key: texts(each["enum"], f"options: {told(key)}: enum", _MOST_RELATED)
                for key, each in details.items()
                if "enum" in each
            },
            env={key: text(value, f"containerEnv: {told(key)}") for key, value in env.items()},
            depends_on={key: parse_options(value, f"dependsOn: {told(key)}") for key, value in depends.items()},
            installs_after=texts(document.get("installsAfter", []), "installsAfter", _MOST_RELATED),
            legacy_ids=texts(document.get("legacyIds", []), "legacyIds", _MOST_RELATED),
            kept={key: document[key] for key in _KEPT if key in document},
            notes=tuple(notes),
        )


def _object(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key) or {}
    if not isinstance(found, dict) or len(found) > _MOST_VARIABLES:
        raise ValueError(f"{told(key)} is not an object with {_MOST_VARIABLES} members at most")
    return found


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that is to be installed, with its files here."""

    name: str
    """As it was asked for."""
    resource: str
    """Without a version: what others call it in `Metadata.installs_after`."""
    tag: str
    """The version that was asked for; empty for a local one, and where a digest was named."""
    digest: Digest
    """Of its manifest; of its files when it is local."""
    integrity: Digest | None
    """Its manifest's, as a lock file has it; None when it is local."""
    options: Options
    """Those that were given."""
    metadata: Metadata
    folder: Path

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What two features that are the same have in common: what they are, and how they are asked for."""
        what = self.digest if self.integrity else f"{self.resource} {self.digest}"
        return what, tuple(sorted(self.options.items()))

    def environment(self) -> dict[str, str]:
        """Return the variables of its script: its options, with their defaults.

        Raises `UsageError` for a value that its list does not have.
        """
        values = {**self.metadata.defaults, **self.options}
        for key, allowed in self.metadata.allowed.items():
            if key in self.options and values[key] not in allowed:
                raise UsageError(
                    f"feature {self.name}: {told(key)} cannot be {told(values[key])}",
                    hint=f"choose one of {', '.join(map(told, allowed))}",
                )
        return {variable(key): value for key, value in values.items()}

    def notes(self) -> list[str]:
        """Return sentences about what is not done, and what looks wrong."""
        unknown = [key for key in self.options if key not in self.metadata.defaults]
        found = [
            *self.metadata.notes,
            *(f"it has no option {told(key)}; it is passed on all the same" for key in unknown),
        ]
        return [f"feature {self.name}: {note}" for note in found]
