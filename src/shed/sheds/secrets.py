"""The secrets of sheds: which a shed has, what it sees in their place, and what the relay is told.

``instances/NAME/secrets.json``, mode 0600, has what belongs to one shed alone: its certificate authority and, for each
of its secrets, a placeholder.  Both are made when they are first needed, and are never another shed's.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shed.config.paths import Paths
from shed.egress.rules.policy import name_fits
from shed.egress.secrets.authority import Authority
from shed.egress.secrets.secret import Secret
from shed.egress.secrets.secretstore import SecretStore, StoredSecret
from shed.egress.secrets.secretvalue import Values
from shed.egress.secrets.signing import make_authority
from shed.errors import ConflictError, ShedError
from shed.fsutil import atomic_write
from shed.sheds.metadata import DamagedError, Record

log = logging.getLogger(__name__)
_FILE = "secrets.json"
_MOST_BYTES = 1 << 20
PREFIX = "shed-secret-"
"""How each placeholder begins, so that people know one when they see it."""


class ShedSecrets:
    """The secrets of the sheds below `paths`.  All of it blocks for a moment; several threads may use it."""

    def __init__(self, paths: Paths) -> None:
        self.store = SecretStore(paths.data / "secrets")
        self._instances = paths.instances
        self._values = Values()
        self._told: dict[str, tuple[Secret, ...]] = {}
        """What the relay was told last, by shed."""
        self._lock = threading.Lock()

    def check(self, names: Sequence[str]) -> None:
        """Raise `NotFoundError` for a secret that there is not, `ConflictError` for two with one variable."""
        variables: dict[str, str] = {}
        for name in names:
            variable = self.store.get(name).variable
            if (other := variables.setdefault(variable, name)) != name:
                raise ConflictError(
                    f"the secrets {other} and {name} are both called {variable} in a shed",
                    code="SECRETS_CLASH",
                    hint=f"give one another name there: shed secret set {name} --variable NAME",
                )

    def environment(self, record: Record) -> dict[str, str]:
        """Return the variables that commands in a shed have: each holds a placeholder."""
        if not record.secrets:
            return {}
        placeholders = self._own(record)[1]
        return {each.variable: placeholders[each.name] for each in self._of(record)}

    def variable_for(self, record: Record, host: str) -> str:
        """Return the variable with what stands for a password of `host`; empty when no secret of the shed is one."""
        found = (
            each.variable
            for each in self._of(record)
            if each.header is None and any(name_fits(pattern, host) for pattern in each.hosts)
        )
        return next(found, "")

    def authority(self, record: Record) -> Authority:
        """Return the certificate authority of a shed."""
        return self._own(record)[0]

    def for_relay(self, record: Record) -> tuple[Secret, ...]:
        """Return the secrets of a shed with their values.  One whose value cannot be had is told in the log."""
        if not record.secrets:
            return ()
        self._told[record.name] = found = self._valued(record)
        return found

    def have_changed(self, record: Record) -> bool:
        """Return whether the relay would be told something else now."""
        return bool(record.secrets) and self._told.get(record.name) != self._valued(record)

    def _valued(self, record: Record) -> tuple[Secret, ...]:
        found, placeholders = [], self._own(record)[1]
        for each in self._of(record):
            try:
                value = self._values.of(each)
                found.append(Secret(each.name, placeholders[each.name], value, each.hosts, each.header, each.limits))
            except ShedError as error:
                log.warning("shed %s: %s", record.name, error)
        return tuple(found)

    def problems(self, record: Record) -> list[str]:
        """Return a sentence for each secret of a shed whose value cannot be had."""
        problems = []
        for name in record.secrets or ():
            try:
                self._values.of(self.store.get(name))
            except ShedError as error:
                problems.append(str(error))
        return problems

    def _of(self, record: Record) -> list[StoredSecret]:
        """Return the secrets of a shed, without those that are gone or damaged."""
        found = []
        for name in record.secrets or ():
            try:
                found.append(self.store.get(name))
            except ShedError as error:
                log.warning("shed %s: %s", record.name, error)
        return found

    def _own(self, record: Record) -> tuple[Authority, dict[str, str]]:
        """Return the authority and the placeholders of a shed, and make those that there are not yet."""
        path, since = self._instances / record.name / _FILE, record.created_at
        with self._lock:
            document = _read(path)
            if document.get("created_at") != since:  # the folder is a copy of another shed's
                document = {}
            known: dict[str, str] = document.get("placeholders", {})
            placeholders = {name: known.get(name) or PREFIX + secrets.token_hex(16) for name in record.secrets or ()}
            stored = document.get("authority")
            authority = make_authority(record.name) if stored is None else Authority.parse(stored)
            if stored is None or placeholders != known:
                document = {"created_at": since, "authority": authority.to_json(), "placeholders": placeholders}
                atomic_write(path, json.dumps(document, indent=1) + "\n", mode=0o600)
        return authority, placeholders


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MOST_BYTES))
        placeholders = document.get("placeholders", {})
        if all(isinstance(text, str) for item in placeholders.items() for text in item):
            return dict(document)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DamagedError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError, AttributeError, TypeError):
        pass
    raise DamagedError(f"{path} is damaged", hint="remove it: the shed gets new placeholders when it starts")
