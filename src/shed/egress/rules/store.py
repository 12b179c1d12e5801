"""The profiles of one server: those that are built in, those of its configuration, and those that were made by command.

``DATA/egress/NAME.json`` is one that was made by command, as `Profile.to_json` has it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from shed.egress.rules.policy import Profile
from shed.egress.rules.profiles import BUILT_IN
from shed.errors import ConflictError, DataError, NotFoundError, StorageError, UsageError
from shed.fsutil import atomic_write, fsync_dir, private_folder

_SUFFIX = ".json"
_MOST_BYTES = 1 << 20


class ProfileStore:
    """The profiles in `folder`, beside the built-in ones and `configured`, which come from ``server.yaml``."""

    def __init__(self, folder: Path, configured: Mapping[str, Profile]) -> None:
        self._folder = folder
        self._fixed = {**configured, **BUILT_IN}

    def all(self) -> dict[str, Profile]:
        """Return all profiles by name.  Raises `DataError` for one that cannot be read: rules are not guessed."""
        found = dict(self._fixed)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")) if self._folder.is_dir() else ():
            if path.stem not in found:
                found[path.stem] = _read(path)
        return found

    def set(self, name: str, document: object) -> Profile:
        """Keep a profile, in place of one of the same name.  Raises `UsageError`, `ConflictError`, `StorageError`."""
        if name in self._fixed:
            where = "is built in" if name in BUILT_IN else "is from the server's configuration"
            raise ConflictError(
                f"the egress profile {name!r} {where}", code="EGRESS_PROFILE_FIXED", hint="choose another name"
            )
        profile = Profile.parse(name, document)
        private_folder(self._folder)
        atomic_write(self._path(name), json.dumps(profile.to_json(), indent=1) + "\n", mode=0o600)
        return profile

    def remove(self, name: str) -> None:
        """Remove a profile.  Raises `NotFoundError`, `ConflictError`."""
        if name in self._fixed:
            raise ConflictError(f"the egress profile {name!r} cannot be removed", code="EGRESS_PROFILE_FIXED")
        if name not in self.all():
            raise NotFoundError(f"there is no egress profile {name!r}", code="UNKNOWN_EGRESS_PROFILE")
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()
            fsync_dir(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def _read(path: Path) -> Profile:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too long")
        return Profile.parse(path.stem, json.loads(path.read_bytes()))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError, UsageError) as error:
        raise DataError(
            f"the egress profile in {path} is damaged: {error}",
            code="EGRESS_PROFILE_DAMAGED",
            hint=f"set it again: shed egress profile set {path.stem}; or remove the file",
        ) from error
