"""Leases that keep sheds awake although nobody uses them: kept with the shed, few, and each with an end.

They are in ``awake.json`` of the shed's folder.  A file that makes no sense holds none: the shed may sleep then.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from shed.errors import DataError
from shed.fsutil import atomic_write, storage_errors
from shed.names import MAX_AWAKE
from shed.oci.fields import Fields, decode_object
from shed.sheds import metadata

MOST_LEASES = 32
"""Of one shed."""
_FILE = "awake.json"


@dataclass(frozen=True, slots=True)
class Lease:
    """Keeps a shed awake until then, which is written as `metadata.Record.created_at`."""

    id: str
    until: str
    reason: str


def load(instance: Path) -> list[Lease]:
    """Return the leases of a shed whose time is not over, the first to end first.  Blocks for a moment."""
    now = time.time()
    try:
        document = Fields(decode_object((instance / _FILE).read_bytes(), _FILE), _FILE)
        members = [Fields(each, _FILE) for each in document.items("leases", MOST_LEASES)]
        held = [Lease(each.text("id"), each.text("until"), each.text("reason")) for each in members]
        held = [lease for lease in held if now < metadata.seconds_of(lease.until) <= now + MAX_AWAKE + 1]
    except (OSError, DataError, ValueError):
        return []
    return sorted(held, key=lambda lease: lease.until)


def save(instance: Path, held: list[Lease]) -> None:
    """Have these be the leases of a shed.  Raises `StorageError`."""
    if held:
        document = {"leases": [asdict(lease) for lease in held]}
        atomic_write(instance / _FILE, json.dumps(document) + "\n", mode=0o600)
    else:
        with storage_errors(instance):
            (instance / _FILE).unlink(missing_ok=True)
