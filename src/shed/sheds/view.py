"""A shed as the API shows it: its record, its status, and the VM's process id."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from shed.api import sheds as api
from shed.backends.base import Backend, Liveness
from shed.budget import Reserve
from shed.errors import ShedError, StorageError
from shed.sheds.folders import Folders
from shed.sheds.metadata import Record
from shed.sheds.upper import has_errors, repair

Shed = dict[str, Any]
"""Such a view: names and JSON values."""
_SHOWN = [field.name for field in fields(Record) if field.name in api.Shed.__struct_fields__]
"""What a record and the API call by the same name."""


def view(
    record: Record, folders: Folders, backend: Backend, space: Reserve, *, starting: bool, misuse: str, waits: bool
) -> Shed:
    """Return what there is to say of the shed `record`.

    Its status is ``error`` when it cannot be started as it is.  `starting` when its VM is being brought up, `misuse` what
    its guest did wrong.

    With `waits` it waits for room on the host's disk.  A running one is told when `space` is not free any more.
    """
    liveness = backend.liveness(folders.instance)
    shed: Shed = {
        **{name: value for name in _SHOWN if (value := getattr(record, name)) is not None},
        "status": "stopped" if liveness is Liveness.NOT_OURS else "running",
        "image_digest": record.lower_digest,
    }
    if record.local_dir is None:
        del shed["local_dir_mode"]
    if starting:
        shed["status"] = "starting"
    elif liveness is Liveness.NOT_OURS and not folders.upper.exists():
        shed["status"] = "error"
        shed["detail"] = f"its writable layer is gone: put {folders.upper} back, or `shed delete {record.name}`"
    elif liveness is Liveness.NOT_OURS and record.wanted == "running":
        shed["detail"] = "its VM ended on its own"
    elif liveness is Liveness.UNKNOWN:
        shed["detail"] = "it cannot be told whether its VM runs"
    elif misuse and liveness is not Liveness.NOT_OURS:
        shed["detail"] = f"its link was dropped: {misuse}; `shed stop {record.name}` ends it"
    elif waits and liveness is Liveness.OURS:
        shed["detail"] = (
            "it stands still: the disk of its host is full; free some space there, and it goes on by itself"
        )
    elif has_errors(folders.upper):
        how = f"stop it, then: {repair(folders.upper)}"
        shed["detail"] = f"its file system has errors, as after a full disk of the host; {how}"
    elif liveness is Liveness.OURS and (trouble := _trouble(space)):
        shed["detail"] = f"it may soon stand still: {trouble}"
    if liveness is not Liveness.NOT_OURS and (pid := backend.pid(folders.instance)) is not None:
        shed["pid"] = pid
    return shed


def view_of_damaged(name: str, error: ShedError) -> Shed:
    """Return what there is to say of a shed whose record cannot be read, as `error` tells."""
    return {"name": name, "status": "error", "detail": f"{error.message}; {error.next_step}"}


def _trouble(space: Reserve) -> str:
    try:
        space.check()
    except StorageError as error:
        return error.message
    return ""
