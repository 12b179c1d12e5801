"""``devcontainer-lock.json``: which bytes the names of features mean.

Source: https://github.com/devcontainers/spec/blob/main/docs/specs/devcontainer-lockfile.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from shed.devjson import load
from shed.errors import DataError
from shed.fsutil import atomic_write, public_mode
from shed.images.devcontainer.feature import Feature
from shed.images.devcontainer.files import read_below
from shed.images.devcontainer.order import without_version
from shed.oci.digest import Digest, is_digest
from shed.untrusted import told

_MOST_FILE = 64 << 10


def lock_path(file: Path) -> Path:
    """Return where the lock file of a ``devcontainer.json`` is: beside it, hidden if that is."""
    return file.with_name(f"{'.' if file.name.startswith('.') else ''}devcontainer-lock.json")


def read_lock(project: Path, path: Path) -> dict[str, Digest]:
    """Return the digest of the manifest that each name stands for, in small letters; nothing without a file.

    `path` is below the folder `project`, and no link of it is followed.

    Raises `DataError`.
    """
    if not os.path.lexists(path):
        return {}
    try:
        found = load(read_below(project, path, _MOST_FILE)).get("features")
    except ValueError as error:
        raise DataError(f"{path}: {error}", hint="remove it, and write it again: --lock") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} has no features", hint="remove it, and write it again: --lock")
    digests: dict[str, Digest] = {}
    for name, entry in found.items():
        resolved, integrity = (entry.get(key) if isinstance(entry, dict) else None for key in ("resolved", "integrity"))
        resource, _, digest = str(resolved).partition("@")
        if not is_digest(digest) or digest != integrity or resource.lower() != without_version(name):
            raise DataError(
                f"{path}: {told(name)} is not locked to a digest of its own",
                hint="remove that entry, and write it again: --lock",
            )
        digests[name.lower()] = Digest(digest)
    return digests


def write_lock(path: Path, features: Iterable[Feature]) -> None:
    """Write the lock file for `features`; local ones are not in it.  Raises `StorageError`."""
    entries = {}
    for feature in sorted(features, key=lambda each: each.name.lower()):
        if feature.integrity is not None:
            entry: dict[str, object] = {
                "version": feature.metadata.version,
                "resolved": f"{feature.resource}@{feature.integrity}",
                "integrity": feature.integrity,
            }
            if feature.metadata.depends_on:
                entry["dependsOn"] = sorted(name.lower() for name in feature.metadata.depends_on)
            entries[feature.name.lower()] = entry
    atomic_write(path, json.dumps({"features": entries}, indent=2) + "\n", mode=public_mode())
