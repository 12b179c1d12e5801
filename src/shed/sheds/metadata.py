"""What is known of a shed on disk: its `metadata.json`, and the `.creating` marker of an unfinished create.

Both are written atomically and read with suspicion: every member's type is checked, unknown members are ignored.  What
runs is not written here (the backend knows), only what the user asked for.
"""

from __future__ import annotations

import calendar
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from shed.backends.base import SHARE_MODES
from shed.egress.rules.hostports import HostPort
from shed.errors import DataError, UsageError
from shed.fsutil import atomic_write
from shed.sheds import repository
from shed.sheds.agentrule import AgentRule
from shed.sheds.mountspec import Mount
from shed.sheds.portspec import Published
from shed.sheds.workspace import TARGET

SCHEMA_VERSION = 3
EGRESS = ["internet"]
NETWORKS = ("relay", "nic")
RESTARTS = ("no", "always")
TTL_ACTIONS = ("delete", "stop", "suspend")
METADATA = "metadata.json"
MARKER = ".creating"
RENAMING = ".renaming"
"""The name that a shed is about to get; its record may have it already, see `shed.sheds.rename`."""
MEMORY = "memory"
"""The folder with the memory of a suspended shed, see `shed.sheds.asleep`."""
MEMORY_LEFT = (".memory.new", ".memory.used")
"""The same while it is written, and when it is of no use any more."""
_MAX_FILE = 1 << 20
_FOREIGN = ("firecracker", "vz")
"""Backends of the implementation in Go, whose records have the same schema and other members."""


@dataclass(frozen=True, slots=True)
class Record:
    """One shed.  `lower_digest` pins the image's manifest: start never looks at the image's name again."""

    name: str
    created_at: str
    """UTC, RFC 3339."""
    image: str
    """The reference the user asked for; for display."""
    lower_digest: str
    backend: str
    cpus: int
    memory_mb: int
    upper_size_bytes: int
    wanted: str = "running"
    """``running`` or ``stopped``: what the user asked for last."""
    started_at: str | None = None
    """When it was first started after its last stop, as `created_at`; None: it has run since it was created."""
    local_dir: str | None = None
    """Host folder at ``/workspace``, absolute and without symlinks."""
    local_dir_mode: str = "rw"
    """One of `shed.backends.base.SHARE_MODES`."""
    mounts: list[str] | None = None
    """Further folders of the host, see `shed.sheds.mountspec`; None for none.

    An empty list: it was started with some, and its VM has none of them any more.
    """
    labels: dict[str, str] | None = None
    """What its user noted of it; None for nothing."""
    expires_at: str | None = None
    """When its time is up, as `created_at`; None: never."""
    ttl_action: str = "delete"
    """What is done then, one of `TTL_ACTIONS`."""
    idle_suspend: int = 0
    """Seconds after which it is suspended when nobody has used it and it was not busy; 0: never."""
    restart: str = "no"
    """``always``: it is started again when its VM has ended and nobody has stopped it; else ``no``."""
    variables: dict[str, str] | None = field(default=None, repr=False)
    """Environment variables of all its commands; None for none.  Their values are nobody else's business."""
    egress: list[str] | None = None
    """Names of the profiles that rule what it reaches; None, in a record of an earlier version: those of `EGRESS`."""
    ports: list[str] | None = None
    """Ports of the host that lead to ports of the shed, see `shed.sheds.portspec`; None for none."""
    host_ports: list[str] | None = None
    """Ports of the host that the shed reaches, see `shed.egress.rules.hostports`; None for none."""
    secrets: list[str] | None = None
    """Names of the secrets that the relay puts into its requests; None for none."""
    ssh_agent: list[str] | None = None
    """Where it may use an SSH agent that a client forwards, see `shed.sheds.agentrule`; None for nowhere."""
    client: str | None = None
    """Stands for the client with which it ends, see `shed.sheds.attached`; None: it stays."""
    network: str = "relay"
    """``relay``, or ``nic``: a way out of its own, which no rule is asked about."""
    repo: str | None = None
    """The repository that it was made with, ``URL[#REF]``, without a password."""
    repo_depth: int = 1
    """Commits of its history that are cloned; 0: all."""
    repo_hosts: list[str] | None = None
    """``HOST:PORT`` of that, and of dotfiles, which it reaches beside what its profiles allow; None: none."""
    timezone: str = ""
    """Its time zone, as ``Europe/Berlin``, where its image knows that; empty: as the image has it."""
    provision: str = ""
    """``yes``: hooks of its project run at its starts and stops; ``no``: its user wants none; empty: it has none."""
    project_env: dict[str, str] | None = None
    """Environment variables that its project wants; they lose against all others."""
    guest_uid: int = 0
    guest_gid: int = 0
    """The guest user who stands for the owner of `local_dir` and `mounts`."""

    @property
    def egress_profiles(self) -> list[str]:
        """Return the names of the profiles that rule what it reaches."""
        return EGRESS if self.egress is None else self.egress

    @property
    def is_ruled(self) -> bool:
        """Say whether what it reaches is ruled."""
        return self.network != "nic"

    @property
    def published(self) -> list[Published]:
        """Return the ports of the host that lead to ports of the shed."""
        return [Published.parse(text) for text in self.ports or ()]

    @property
    def open_host_ports(self) -> list[HostPort]:
        """Return the ports of the host that the shed reaches."""
        return [HostPort.parse(text) for text in self.host_ports or ()]

    @property
    def mounted(self) -> list[Mount]:
        """Return the folders of the host that it has beside its workspace."""
        return [Mount.parse(text) for text in self.mounts or ()]

    @property
    def shares(self) -> bool:
        """Say whether its VM has folders of the host, or can get some."""
        return self.local_dir is not None or self.mounts is not None

    @property
    def takes_mounts(self) -> bool:
        """Say whether its VM can get folders: if it has the guard that this needs anyway, or asks for it."""
        return self.mounts is not None or (self.local_dir is not None and self.local_dir_mode == "rw")

    @property
    def shared(self) -> list[Mount]:
        """Return all folders of the host that it has, its workspace first."""
        own = [] if self.local_dir is None else [Mount(self.local_dir, TARGET, self.local_dir_mode)]
        return own + self.mounted

    @property
    def agent_rule(self) -> AgentRule:
        """Return where it may use an SSH agent."""
        return AgentRule.parse(self.ssh_agent or ())

    def with_ports(self, published: Iterable[Published], host_ports: Iterable[HostPort]) -> Record:
        """Return this record with these ports instead of those it has."""
        return replace(self, ports=list(map(str, published)) or None, host_ports=list(map(str, host_ports)) or None)


@dataclass(frozen=True, slots=True)
class Marker:
    """A create that is under way, or was when its server ended; it keeps the image's blobs from being pruned."""

    name: str
    image: str
    digest: str
    created_at: str


class DamagedError(DataError):
    """A shed's stored record cannot be used."""

    code = "SHED_DAMAGED"


def now() -> str:
    """Return the current time as UTC in RFC 3339, whole seconds."""
    return at(time.time())


def at(moment: float) -> str:
    """Return a time, in seconds since 1970, as UTC in RFC 3339, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def seconds_of(text: str) -> float:
    """Return the seconds since 1970 of what `at` returned.  Raises `ValueError`."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def save(folder: Path, record: Record) -> None:
    """Write `record` as the metadata of the instance `folder`.  Raises `StorageError`."""
    members = {key: value for key, value in asdict(record).items() if value is not None}
    atomic_write(folder / METADATA, _json({"schema_version": SCHEMA_VERSION, **members}), mode=0o600)


def load(folder: Path) -> Record:
    """Return the record of the instance `folder`.

    Raises `DamagedError` when it is missing, unreadable, of another schema or implementation, or of another shed.
    """
    values = _values(folder)
    if values.get("backend") in _FOREIGN or ("image" not in values and "lower_image_tag" in values):
        raise DamagedError(
            f"shed {folder.name!r} was made by another implementation of shed, whose VMs do not run here",
            code="SHED_FOREIGN",
            hint=f"use the program that made it, or remove it: shed delete --force {folder.name}",
        )
    path = folder / METADATA
    record: Record = _parse(Record, values, path)
    if record.name != folder.name and not (folder / RENAMING).exists():
        raise _damaged(path, f"it names the shed {record.name!r}")
    if record.wanted not in {"running", "stopped"}:
        raise _damaged(path, f"wanted is {record.wanted!r}")
    if record.local_dir_mode not in SHARE_MODES:
        raise _damaged(path, f"local_dir_mode is {record.local_dir_mode!r}")
    if record.network not in NETWORKS:
        raise _damaged(path, f"network is {record.network!r}")
    if record.restart not in RESTARTS:
        raise _damaged(path, f"restart is {record.restart!r}")
    if record.repo_depth < 0:
        raise _damaged(path, f"repo_depth is {record.repo_depth}")
    if record.idle_suspend < 0:
        raise _damaged(path, f"idle_suspend is {record.idle_suspend}")
    if record.ttl_action not in TTL_ACTIONS:
        raise _damaged(path, f"ttl_action is {record.ttl_action!r}")
    try:
        _ = record.published, record.open_host_ports, record.agent_rule, record.mounted
        _ = [repository.profile(place) for place in record.repo_hosts or ()]
    except UsageError as error:
        raise _damaged(path, error.message) from None
    for moment in ("expires_at", "started_at"):
        value = getattr(record, moment)
        try:
            _ = value is None or seconds_of(value)
        except ValueError:
            raise _damaged(path, f"{moment} is {value!r}") from None
    return record


def pinned(folder: Path) -> str:
    """Return the digest that the record of the instance `folder` pins; that is read in foreign records, too.

    Raises `DamagedError`.
    """
    digest = _values(folder).get("lower_digest")
    if not isinstance(digest, str):
        raise _damaged(folder / METADATA, "lower_digest is missing")
    return digest


def _values(folder: Path) -> dict[str, Any]:
    """Return the members of the record of the instance `folder`, which has our schema.  Raises `DamagedError`."""
    path = folder / METADATA
    values = _read(path)
    version = values.get("schema_version")
    if isinstance(version, int) and not isinstance(version, bool) and version != SCHEMA_VERSION:
        age = "an older" if version < SCHEMA_VERSION else "a newer"
        raise DamagedError(
            f"shed {folder.name!r} was made by {age} version of shed (metadata schema {version}, this one reads "
            f"{SCHEMA_VERSION})",
            code="SHED_SCHEMA",
            hint=f"use the version that made it, or remove it: shed delete --force {folder.name}",
        )
    if version != SCHEMA_VERSION:
        raise _damaged(path, "schema_version is missing")
    return values


def save_marker(folder: Path, marker: Marker) -> None:
    """Mark the instance `folder` as being created."""
    atomic_write(folder / MARKER, _json(asdict(marker)), mode=0o600)


def load_marker(folder: Path) -> Marker | None:
    """Return the marker of the instance `folder`, None when there is none.  Raises `DamagedError`."""
    path = folder / MARKER
    try:
        marker: Marker = _parse(Marker, _read(path), path)
    except DamagedError:
        if path.exists():
            raise
        return None
    return marker


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > _MAX_FILE:
                raise _damaged(path, "it is too long")
            value = json.loads(file.read().decode())
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except OSError as error:
        raise _damaged(path, error.strerror or "it cannot be read") from error
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(value, dict):
        raise _damaged(path, "it is not a JSON object")
    return value


def _parse(kind: type[Any], values: dict[str, Any], path: Path) -> Any:
    types: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "str": (str,),
        "str | None": (str, type(None)),
        "dict[str, str] | None": (dict, type(None)),
        "list[str] | None": (list, type(None)),
    }
    found = {}
    for member in fields(kind):
        if member.name in values:
            value = values[member.name]
            texts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            wrong = isinstance(value, bool) or not all(isinstance(text, str) for text in texts)
            if wrong or not isinstance(value, types[str(member.type)]):
                raise _damaged(path, f"{member.name} is not {str(member.type).removesuffix(' | None')}")
            found[member.name] = value
        elif member.default is MISSING:
            raise _damaged(path, f"{member.name} is missing")
    return kind(**found)


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(
        f"the record of shed {path.parent.name!r} is damaged: {path}: {why}",
        hint=f"repair the file, or remove the shed and all in it: shed delete --force {path.parent.name}",
    )
