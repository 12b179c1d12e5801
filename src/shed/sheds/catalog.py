"""What there is to read about sheds: their records and status as the API shows them, their consoles and workspaces.

Nothing here changes a shed, or waits for one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from shed.api import sheds as api
from shed.backends.base import Liveness, Stream
from shed.backends.interface import Backend
from shed.budget import Reserve
from shed.config.paths import Paths
from shed.errors import NotFoundError, ShedError, StorageError
from shed.names import check_shed_name
from shed.progress import Progress
from shed.sheds import asleep, leases, metadata
from shed.sheds import folders as places
from shed.sheds.console import ConsoleStream, last_lines
from shed.sheds.entry import Entry
from shed.sheds.folders import Folders
from shed.sheds.load import views
from shed.sheds.metadata import Record
from shed.sheds.room import Room
from shed.sheds.troubles import Troubles
from shed.sheds.upper import has_errors, repair

log = logging.getLogger(__name__)
View = dict[str, Any]
"""Such a view: names and JSON values."""
_SHOWN = [field.name for field in fields(Record) if field.name in api.Shed.__struct_fields__]
"""What a record and the API call by the same name."""


class Catalog:
    """Reads about the sheds below `paths`; `names` has what this server does with them at the moment."""

    def __init__(self, paths: Paths, backend: Backend, names: Mapping[str, Entry], space: Reserve, room: Room) -> None:
        self._paths = paths
        self._backend = backend
        self._names = names
        self._space = space
        self._room = room
        self.troubles = Troubles(paths, self.running)
        """What goes wrong in those that run."""

    def get(self, name: str) -> View:
        """Return the shed `name`.  Raises `NotFoundError`, `DamagedError`."""
        folders = self.folders(name)
        marker = metadata.load_marker(folders.instance)
        if marker is not None:
            entry = self._names.get(name)
            if entry is None or entry.doing != "create":  # cut short: it never existed, and is about to go
                raise missing(name)
            return {
                "name": name,
                "status": "starting",
                "created_at": marker.created_at,
                "image": marker.image,
                "image_digest": marker.digest,
                "backend": self._backend.name,
            }
        return self.view(load(folders))

    def list(self) -> tuple[list[View], list[str]]:
        """Return all sheds, also those whose records cannot be read, and warnings of what could not be looked at."""
        sheds, warnings = [], []
        for name in places.names(self._paths):
            try:
                sheds.append(self.get(name))
            except NotFoundError:
                continue
            except metadata.DamagedError as error:
                sheds.append(_view_of_damaged(name, error))
            except ShedError as error:
                warnings.append(error.message)
        return sheds, warnings

    def local_dir(self, name: str) -> str | None:
        """Return the host's folder that is the workspace of the shed `name`.

        Raises `NotFoundError`, `DamagedError`.
        """
        return load(self.folders(name)).local_dir

    def console_log(self, name: str, *, lines: int | None = None) -> bytes:
        """Return the end of what the VM's console has said, the last `lines` of it."""
        return last_lines(self.existing(name).console_tail()[0], lines)

    def follow_console(self, name: str, *, lines: int | None = None) -> Stream:
        """Return what `console_log` does, and then what the console says, until the shed is deleted."""
        folders = self.existing(name)
        tail, position = folders.console_tail()
        return ConsoleStream(folders.console, last_lines(tail, lines), position)

    def machines(self) -> dict[int, str]:
        """Return the names of sheds by the recorded process ids of their VMs, whether or not their agents answer."""
        found = ((name, self._backend.pid(Folders(self._paths, name).instance)) for name in places.names(self._paths))
        return {process: name for name, process in found if process is not None}

    def look_at_workspace(self, name: str, after: str | None, target: str) -> dict[str, Any]:
        """Return what in the folder that a shed has at `target` may run on the host; see `shed.sheds.leftovers`.

        Raises `UsageError` when it has none.
        """
        from shed.sheds import leftovers  # noqa: PLC0415  few ask

        return leftovers.view(load(self.folders(name)), after, target)

    def record(self, name: str) -> Record:
        """Return what was asked for of a shed.  Raises `NotFoundError`, `DamagedError`."""
        return load(self.folders(name))

    def running(self) -> Iterator[tuple[Record, Path]]:
        """Yield the records of the sheds whose VMs run, and the folders of these VMs."""
        for name in places.names(self._paths):
            folders = Folders(self._paths, name)
            if self._backend.liveness(folders.instance) is Liveness.OURS:
                with contextlib.suppress(ShedError):
                    yield metadata.load(folders.instance), folders.instance

    def loads(self) -> Iterator[View]:
        """Yield what running sheds use of their host."""
        machines = (
            (record, self._backend.pid(folder), self.folders(record.name).upper) for record, folder in self.running()
        )
        yield from views((record, pid, upper) for record, pid, upper in machines if pid is not None)

    def records(self) -> Iterator[Record]:
        """Yield the records of all sheds that can be read."""
        for name in places.names(self._paths):
            with contextlib.suppress(ShedError):
                yield metadata.load(Folders(self._paths, name).instance)

    def with_egress(self, profile: str) -> Sequence[str]:
        """Return the names of the sheds that have an egress profile."""
        return [record.name for record in self.records() if profile in record.egress_profiles]

    def with_secret(self, secret: str) -> Sequence[str]:
        """Return the names of the sheds that have a secret."""
        return [record.name for record in self.records() if secret in (record.secrets or ())]

    def folders(self, name: str) -> Folders:
        """Return the folders of `name`, be there a shed or not.  Raises `UsageError` for what is no name."""
        return Folders(self._paths, check_shed_name(name))

    def existing(self, name: str) -> Folders:
        """Return the folders of a shed that is there.  Raises `NotFoundError`."""
        folders = self.folders(name)
        if not folders.instance.exists():
            raise missing(name)
        return folders

    def done(self, what: str, record: Record, progress: Progress, way: str = "") -> View:
        """End `progress`, the work `what` on a shed; log what it took, and return the view with that.

        `way` is how its VM came up.
        """
        timings = {name: round(spent, 1) for name, spent in progress.finish().items()}
        steps = " ".join(f"{name}={spent:.0f}" for name, spent in timings.items())
        total = sum(timings.values())
        boot = f" boot={way}" if way else ""
        log.info(
            "timing: %s name=%s backend=%s%s total=%.0fms %s", what, record.name, record.backend, boot, total, steps
        )
        return {**self.view(record), **({"boot": way} if way else {}), "timings": timings}

    def view(self, record: Record) -> View:
        """Return what there is to say of the shed `record`."""
        entry = self._names.get(record.name)
        starting = entry is not None and entry.doing == "start" and not entry.link.live
        misuse, waits = entry.link.misuse if entry is not None else "", self._room.waits(record.name)
        folders, space, trouble = self.folders(record.name), self._space, self.troubles.of(record.name)
        return _view(
            record, folders, self._backend, space, starting=starting, misuse=misuse, waits=waits, trouble=trouble
        )


def load(folders: Folders) -> Record:
    """Return the record of a shed.  Raises `NotFoundError`, `DamagedError`."""
    if not folders.instance.exists():
        raise missing(folders.name)
    return metadata.load(folders.instance)


def missing(name: str) -> NotFoundError:
    """Return the error for a name that no shed has."""
    return NotFoundError(f"there is no shed {name!r}", code="SHED_NOT_FOUND", hint="`shed list` shows what there is")


def _view(
    record: Record,
    folders: Folders,
    backend: Backend,
    space: Reserve,
    *,
    starting: bool,
    misuse: str,
    waits: bool,
    trouble: str,
) -> View:
    """Return what there is to say of the shed `record`.

    Its status is ``error`` when it cannot be started as it is.  `starting`: its VM is being brought up.  `misuse`: what
    its guest did wrong.  `waits`: it waits for room on the host's disk.  `trouble`: what goes wrong in it.  A running
    one is told when `space` is not free any more.
    """
    liveness = backend.liveness(folders.instance)
    shed: View = {
        **{name: value for name in _SHOWN if (value := getattr(record, name)) is not None},
        "status": "stopped" if liveness is Liveness.NOT_OURS else "running",
        "image_digest": record.lower_digest,
    }
    if record.local_dir is None:
        del shed["local_dir_mode"]
    if record.mounts:
        shed["mounts"] = [asdict(mount) for mount in record.mounted]
    if record.restart == "no":
        del shed["restart"]
    if held := leases.load(folders.instance):
        shed["awake"] = [asdict(lease) for lease in held]
    if not record.idle_suspend:
        del shed["idle_suspend"]
    if record.expires_at is None or record.ttl_action == "delete":
        del shed["ttl_action"]
    if record.client is not None:
        shed["attached"] = True
    if record.variables:
        shed["env"] = sorted(record.variables)
    if starting:
        shed["status"] = "starting"
    elif liveness is Liveness.NOT_OURS and asleep.is_asleep(folders):
        shed["status"] = "suspended"
        try:
            memory = asleep.load(folders)
            shed["suspended_at"] = memory.since
            if memory.by:
                shed["suspended_by"] = memory.by
        except ShedError as error:
            shed["detail"] = f"{error.message}; {error.next_step}"
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
    elif liveness is Liveness.OURS and trouble:
        shed["detail"] = trouble
    elif has_errors(folders.upper):
        how = f"stop it, then: {repair(folders.upper)}"
        shed["detail"] = f"its file system has errors, as after a full disk of the host; {how}"
    elif liveness is Liveness.OURS and (short := _shortage(space)):
        shed["detail"] = f"it may soon stand still: {short}"
    if not record.is_ruled:
        shed["detail"] = "; ".join(filter(None, (shed.get("detail"), "its network is not ruled (--network nic)")))
    if liveness is not Liveness.NOT_OURS and (pid := backend.pid(folders.instance)) is not None:
        shed["pid"] = pid
    return shed


def _view_of_damaged(name: str, error: ShedError) -> View:
    """Return what there is to say of a shed whose record cannot be read, as `error` tells."""
    return {"name": name, "status": "error", "detail": f"{error.message}; {error.next_step}"}


def _shortage(space: Reserve) -> str:
    try:
        space.check()
    except StorageError as error:
        return error.message
    return ""
