"""The secrets of one server: what each is for, and its value or where that comes from.

``DATA/secrets/NAME.json``, mode 0600 in a folder of mode 0700.  A value is for the relay alone: nothing here shows it,
and an error never has it.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shed.egress.rules.limits import Limits
from shed.egress.secrets.secret import check_value, parse_header, parse_hosts
from shed.errors import ConflictError, DataError, NotFoundError, ShedError, StorageError, UsageError
from shed.fsutil import atomic_write, fsync_dir, locked, private_folder, storage_errors

MOST = 1000
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SUFFIX = ".json"
_MOST_BYTES = 1 << 20
SOURCES = ("value", "from_file", "from_env", "from_command")
"""Where a value comes from: it is kept here, or read from a file or an environment variable of the server, or printed
by a command that the server runs.
"""
_LONGEST_SOURCE = 4096
_RESERVED = frozenset(("PATH", "HOME", "USER", "LOGNAME", "SHELL", "SHED_NAME", "SHED_WORKSPACE", "LD_PRELOAD"))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from."""

    kind: str
    """One of `SOURCES`."""
    text: str = field(repr=False)
    """The value, the path, the name or the command."""


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One secret."""

    name: str
    variable: str
    """The environment variable that has its placeholder in a shed."""
    hosts: tuple[str, ...]
    header: tuple[str, str] | None
    limits: Limits
    source: Source

    @classmethod
    def parse(cls, name: str, document: dict[str, Any]) -> StoredSecret:
        """Return the secret that `document` describes.  Raises `UsageError` (INVALID_SECRET), without the value."""
        if not _NAME.fullmatch(name):
            raise _wrong(name, "a name has small letters, digits and '-'")
        variable = document.get("variable") or name.upper().replace("-", "_")
        if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable) or variable in _RESERVED:
            raise _wrong(name, f"{str(variable)[:80]!r} cannot be the environment variable of a secret")
        try:
            limits = Limits.parse(document.get("methods"), document.get("paths"))
        except ValueError as error:
            raise _wrong(name, str(error)) from None
        hosts, header = parse_hosts(name, document.get("hosts")), parse_header(name, document.get("header"))
        return cls(name, variable, hosts, header, limits, _source(name, document))

    def to_json(self) -> dict[str, Any]:
        """Return the document.  It may have the value."""
        return {**self.shown(), self.source.kind: self.source.text}

    def shown(self) -> dict[str, Any]:
        """Return what anybody may see of the document."""
        known = {"variable": self.variable, "hosts": list(self.hosts), **self.limits.to_json()}
        return known if self.header is None else {**known, "header": list(self.header)}


class SecretStore:
    """The secrets in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> tuple[list[StoredSecret], list[str]]:
        """Return all secrets by name, and a sentence for each that cannot be read."""
        found, warnings = [], []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                found.append(self.get(path.stem))
            except ShedError as error:
                warnings.append(str(error))
        return found, warnings

    def get(self, name: str) -> StoredSecret:
        """Return one secret.  Raises `NotFoundError` (UNKNOWN_SECRET), `StorageError`, `DataError`."""
        path = self._path(name)
        if not _NAME.fullmatch(name) or not path.exists():
            raise NotFoundError(f"there is no secret {name[:80]!r}", code="UNKNOWN_SECRET")
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(_MOST_BYTES))
            if not isinstance(document, dict):
                raise ValueError("it is no object")
            return StoredSecret.parse(name, document)
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError, UsageError):  # their words may have a part of the value
            hint = f"set it again: shed secret set {name}; or remove the file"
            raise DataError(f"the secret in {path} is damaged", code="SECRET_DAMAGED", hint=hint) from None

    def set(self, name: str, document: dict[str, Any]) -> StoredSecret:
        """Keep a secret, in place of one of that name.

        A `document` without ``hosts`` changes only where the value of an existing one comes from.  Raises `UsageError`,
        `NotFoundError`, `ConflictError`, `StorageError`.
        """
        with self._locked():
            if document.get("hosts") is None:
                others = [key for key in ("variable", "header", "methods", "paths") if document.get(key) is not None]
                if others:
                    raise _wrong(name, f"{others[0]} goes with hosts: say both, as they are to be")
                secret = replace(self.get(name), source=_source(name, document))
            else:
                secret = StoredSecret.parse(name, document)
                if not self._path(name).exists() and len(list(self._folder.glob(f"*{_SUFFIX}"))) >= MOST:
                    raise ConflictError(f"there are {MOST} secrets already", hint="remove those that nobody needs")
            atomic_write(self._path(name), json.dumps(secret.to_json(), indent=1) + "\n", mode=0o600)
        return secret

    def remove(self, name: str) -> None:
        """Remove a secret.  Raises `NotFoundError`, `StorageError`."""
        with self._locked():
            path = self._path(name)
            if not _NAME.fullmatch(name) or not path.exists():
                raise NotFoundError(f"there is no secret {name[:80]!r}", code="UNKNOWN_SECRET")
            with storage_errors(path):
                path.unlink()
                fsync_dir(self._folder)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        private_folder(self._folder)
        return locked(self._folder / ".lock")

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def _source(name: str, document: dict[str, Any]) -> Source:
    given = [(kind, document[kind]) for kind in SOURCES if document.get(kind) is not None]
    if len(given) != 1:
        raise _wrong(name, f"its value comes from exactly one of {', '.join(SOURCES)}")
    ((kind, text),) = given
    if kind == "value":
        check_value(name, text)
    elif not isinstance(text, str) or not text.strip() or "\0" in text or len(text) > _LONGEST_SOURCE:
        raise _wrong(name, f"{kind} is not a text of 1 to {_LONGEST_SOURCE} characters")
    elif kind == "from_file" and not text.startswith("/"):
        raise _wrong(name, "from_file is not an absolute path on the server's machine")
    elif kind == "from_env" and not _VARIABLE.fullmatch(text):
        raise _wrong(name, f"{text[:80]!r} is not the name of an environment variable")
    return Source(kind, text)


def _wrong(name: str, what: str) -> UsageError:
    return UsageError(f"secret {name[:80]}: {what}", code="INVALID_SECRET")
