"""The records of prebuilds on disk: ``prebuilds/NAME.json``, mode 0600 for the environment variables in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from shed.api.making import CreateShed
from shed.config.paths import Paths
from shed.errors import DataError, NotFoundError
from shed.fsutil import atomic_write, fsync_dir, private_folder, storage_errors
from shed.names import check_shed_name
from shed.sheds.snapshotstore import readable

VERSION = 1
_MOST_RECORD = 80 << 20
"""Bytes: all commands that a request may have, and some more."""


@dataclass(frozen=True, slots=True)
class Prebuild:
    """How sheds are made ready, and what has become of it."""

    shed: CreateShed
    """The shed that is made ready; its name is that of the prebuild."""
    commands: tuple[str, ...]
    limit: float
    """Seconds that they may take together."""
    every: float | None
    """Seconds from one build to the next, if it is built anew by itself."""
    number: int = 0
    """How many were built."""
    snapshot: str = ""
    """What the last one was kept as; empty: there is none."""
    unused: tuple[str, ...] = ()
    """Snapshots of it that are to be removed: those before that one, and what a build that was cut short has left."""
    built_at: str = ""
    tried_at: str = ""
    """UTC, RFC 3339."""
    failed: str = ""
    """Why the last build has failed."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.shed.name


class PrebuildStore:
    """The prebuilds below `paths`."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.prebuilds

    def log(self, name: str) -> Path:
        """Return where what the commands of a prebuild say is kept; its folder is there then."""
        private_folder(self._folder)
        return self._folder / f"{name}.log"

    def names(self) -> list[str]:
        """Return the names of all prebuilds, sorted."""
        return sorted(path.stem for path in self._folder.glob("[a-z]*.json"))

    def exists(self, name: str) -> bool:
        """Return whether there is a prebuild `name`."""
        return (self._folder / f"{check_shed_name(name)}.json").exists()

    def load(self, name: str) -> Prebuild:
        """Return the prebuild `name`.  Raises `NotFoundError`, `DataError` (PREBUILD_DAMAGED)."""
        path = self._folder / f"{check_shed_name(name)}.json"
        try:
            with path.open("rb") as file:
                members = msgspec.json.decode(file.read(_MOST_RECORD), type=dict[str, Any])
            if members.pop("version", None) != VERSION:
                raise ValueError(f"it is not of version {VERSION}")
            return msgspec.convert(members, Prebuild)
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no prebuild {name!r}", code="PREBUILD_NOT_FOUND", hint="see: shed prebuild ls"
            ) from None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise DataError(
                f"the prebuild {name!r} cannot be read: {error}",
                code="PREBUILD_DAMAGED",
                hint=f"repair {path}, or: shed prebuild rm {name}",
            ) from None

    def all(self) -> tuple[list[Prebuild], list[str]]:
        """Return all prebuilds by name, and a sentence for each that cannot be read."""
        return readable(self.names(), self.load)

    def snapshots(self) -> set[str]:
        """Return the snapshots that prebuilds need.  Raises `DataError` when that cannot be told."""
        return {self.load(name).snapshot for name in self.names()}

    def save(self, prebuild: Prebuild) -> None:
        """Write the record.  Raises `StorageError`."""
        with storage_errors(self._folder):
            private_folder(self._folder)
            members = {"version": VERSION, **asdict(prebuild), "shed": msgspec.to_builtins(prebuild.shed)}
            atomic_write(self._folder / f"{prebuild.name}.json", msgspec.json.encode(members))

    def remove(self, name: str, *, keep_log: bool = False) -> None:
        """Remove the record and, unless it is to be kept, the log.  Raises `StorageError`."""
        with storage_errors(self._folder):
            log = self.log(name)
            for path in (self._folder / f"{check_shed_name(name)}.json", *(() if keep_log else (log,))):
                path.unlink(missing_ok=True)
            fsync_dir(self._folder)
