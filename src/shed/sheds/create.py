"""Making a shed: each step has a name, a timing and an undo, and a failure unwinds them in reverse.

resolve the image → reserve the name → clone the upper → write the metadata → boot → commit
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shed.api.making import CreateShed
from shed.api.sheds import MAX_DEPTH, MAX_TTL, MAX_VARIABLES, MAX_WAIT
from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.config.server import Settings
from shed.egress.rules.hostports import HostPort
from shed.errors import ConflictError, ShedError, UsageError
from shed.images.service import Images
from shed.names import MAX_CPUS, MAX_MEMORY_MB, MIN_MEMORY_MB, check_shed_name
from shed.oci.leases import unpruned
from shed.progress import Progress, Stop
from shed.sheds import agentrule, expiry, idle, metadata, moments, mountspec, nic, upper, workspace
from shed.sheds.admission import Admission
from shed.sheds.boot import Booted, Equip, boot
from shed.sheds.folders import Folders
from shed.sheds.image_settings import ImageSettings
from shed.sheds.portspec import Published
from shed.sheds.repository import Repository
from shed.sheds.snapshotstore import Origin, Snapshot
from shed.sheds.warm import WarmStart
from shed.sizes import format_size
from shed.threads import in_thread, stoppable

if TYPE_CHECKING:
    from shed.images.resolve import BootImage

log = logging.getLogger(__name__)
_MOST_VARIABLES = 128 << 10
"""Bytes of all environment variables of a shed: the record that has them is read at each start."""
_MOST_ZONE = 64
Resolve = Callable[[str], "BootImage"]
Ensure = Callable[[str, Progress, Stop], str]
"""Has an image here, pulling it if need be, and returns what to resolve."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request, with the defaults filled in."""

    record: metadata.Record
    """What it comes to; what only the image tells is still to be filled in."""
    ttl: float | None
    """Seconds from its making to its end."""
    wait: float
    cold: bool
    force: bool
    trust_kernel: bool
    repository: Repository | None = None
    """What is cloned into it."""
    dotfiles: Repository | None = None
    """What its user's home gets."""
    upper: Path | None = None
    """The writable layer that it begins with; None: an empty one."""
    memory: Path | None = None
    """What it goes on from, which was kept with that layer."""


def plan(request: CreateShed, settings: Settings, origin: Origin | None = None, *, client: str | None = None) -> Plan:
    """Check `request`, which may begin with a snapshot, and fill in the defaults.  Raises `UsageError`.

    `client` is what the shed is to end with; None: it stays.
    """
    cpus = settings.default_cpus if request.cpus is None else request.cpus
    if not 1 <= cpus <= MAX_CPUS:
        raise UsageError(f"a shed cannot have {cpus} cpus", hint=f"choose from 1 to {MAX_CPUS}")
    memory_mb = settings.default_memory_mb if request.memory_mb is None else request.memory_mb
    if not MIN_MEMORY_MB <= memory_mb <= MAX_MEMORY_MB:
        raise UsageError(
            f"a shed cannot have {memory_mb} MB of memory", hint=f"choose from {MIN_MEMORY_MB} to {MAX_MEMORY_MB}"
        )
    wait = settings.start_timeout if request.timeout is None else request.timeout
    if not 0 < wait <= MAX_WAIT:
        raise UsageError(
            f"a timeout of {wait:g} s is not possible", hint=f"choose more than 0, and {MAX_WAIT:g} at most"
        )
    if request.ttl is not None and not 0 < request.ttl <= MAX_TTL:
        raise expiry.impossible(request.ttl)
    cloned = repository(request, settings)
    kept = None if origin is None else origin.snapshot
    network = nic.checked(request, settings)
    local_dir = None if request.local_dir is None else workspace.check_local_dir(request.local_dir)
    mounts = mountspec.checked(request.mounts or (), local_dir)
    shares = local_dir is not None or bool(mounts)
    record = metadata.Record(
        name=check_shed_name(request.name),
        created_at="",
        image=kept.source_image if kept else settings.default_image if request.image is None else request.image,
        lower_digest=kept.lower_digest if kept else "",
        backend="",
        cpus=cpus,
        memory_mb=memory_mb,
        upper_size_bytes=_upper_size(request, settings, kept),
        local_dir=local_dir,
        local_dir_mode=workspace.check_mode(request.local_dir_mode, request.local_dir),
        mounts=list(map(str, mounts)) or None,
        labels=request.labels or None,
        restart=request.restart or "no",
        ttl_action=expiry.action(request.ttl_action or "delete", shares=shares),
        idle_suspend=idle.chosen(request.idle_suspend, settings.idle_suspend, network, shares=shares),
        variables=checked_variables(request.env or {}),
        egress=list(_egress(settings, kept) if request.egress is None else dict.fromkeys(request.egress)),
        secrets=list(dict.fromkeys(request.secrets or ())) or None,
        ssh_agent=agentrule.checked(request.ssh_agent or ()) or None,
        network=network,
        repo=None if cloned is None else str(cloned),
        repo_depth=1 if request.depth is None else request.depth,
        client=client,
        timezone=_zone_here() if request.timezone is None else request.timezone,
        provision="no" if request.no_provision else "",
    ).with_ports(map(Published.parse, request.ports or ()), map(HostPort.parse, request.host_ports or ()))
    dotfiles = None if request.dotfiles is None else Repository.parse(request.dotfiles, settings.git_base_url)
    found = Plan(record, request.ttl, wait, request.cold, request.force, request.trust_kernel, cloned, dotfiles)
    if origin is None:
        return found
    found = replace(found, upper=origin.upper)
    if origin.snapshot.memory is None or request.cold or request.disk_only:
        return found
    return replace(found, record=moments.fits(record, request, origin.snapshot), memory=origin.memory)


def repository(request: CreateShed, settings: Settings) -> Repository | None:
    """Return the repository that a new shed clones.  Raises `UsageError`."""
    if request.repo is None:
        if request.depth is not None:
            raise UsageError("a depth is for a repository", hint="name it with --repo, or leave out --depth")
        return None
    if request.local_dir is not None:
        raise UsageError(
            "a repository is cloned into the workspace, which is a folder of the host with --local-dir",
            hint="leave out one of the two",
        )
    if request.from_snapshot is not None:
        raise UsageError(
            "what is in a snapshot or a prebuild has a workspace already",
            hint="leave out --repo, or what it begins with",
        )
    if request.depth is not None and not 0 <= request.depth <= MAX_DEPTH:
        raise UsageError(f"{request.depth} commits cannot be fetched", hint="choose 1 or more, or 0 for all")
    return Repository.parse(request.repo, settings.git_base_url)


def _zone_here() -> str:
    """Return the time zone of this machine; empty where its name cannot be told."""
    try:
        return str(Path("/etc/localtime").readlink()).partition("/zoneinfo/")[2][:_MOST_ZONE]
    except OSError:
        return ""


def _upper_size(request: CreateShed, settings: Settings, kept: Snapshot | None) -> int:
    """Return how large the writable layer is to be.  Raises `UsageError`."""
    least = kept.size_bytes if kept else 0
    if request.upper_size_bytes is None:
        return upper.check_upper_size(least or settings.default_upper_size)
    if request.upper_size_bytes < least:
        raise UsageError(
            f"a writable layer of {format_size(request.upper_size_bytes)} cannot hold the snapshot, which has "
            f"{format_size(least)}",
            hint="choose that, or more",
        )
    return upper.check_upper_size(request.upper_size_bytes)


def _egress(settings: Settings, kept: Snapshot | None) -> Sequence[str]:
    """Return the profiles of a shed for which none is asked: what is in a snapshot reaches no more than it did."""
    return settings.egress_default if kept is None or kept.egress is None else kept.egress


def checked_variables(found: dict[str, str]) -> dict[str, str] | None:
    """Return the environment variables that a shed is to have.  Raises `UsageError` when they are too many or long."""
    if len(found) > MAX_VARIABLES:
        raise UsageError(f"a shed cannot have {len(found)} environment variables", hint=f"take {MAX_VARIABLES} at most")
    if sum(len(f"{key}={value}".encode()) for key, value in found.items()) > _MOST_VARIABLES:
        raise UsageError(
            f"the environment variables have more than {format_size(_MOST_VARIABLES)} together",
            hint="put what is long into a file: shed cp",
        )
    return found or None


async def create(
    wanted: Plan,
    folders: Folders,
    backend: Backend,
    resolve: Resolve,
    ensure: Ensure | None,
    *,
    equip: Equip,
    admission: Admission,
    warm: WarmStart,
    progress: Progress,
) -> tuple[metadata.Record, Booted]:
    """Make the shed; the caller holds its name.  Returns its record and its VM with a ready agent.

    On failure nothing is left.
    """
    if folders.instance.exists():
        raise exists(wanted.record.name)
    if folders.upper.parent.exists():
        raise ConflictError(
            f"{folders.upper.parent} holds a writable layer that belongs to no shed",
            code="UPPER_EXISTS",
            hint="move it away if it is precious, or remove it",
        )
    progress.phase("image", f"image {wanted.record.image}")
    here = (
        wanted.record.lower_digest or wanted.record.image
        if ensure is None or wanted.record.lower_digest
        else await stoppable(lambda stop: ensure(wanted.record.image, progress, stop), progress.abandoned, long=True)
    )
    if wanted.trust_kernel:
        await in_thread(_trust, folders, here)
    image = await in_thread(resolve, here)
    async with (
        admission.admitted(wanted.record.name, wanted.record.memory_mb, new=True, force=wanted.force),
        AsyncExitStack() as undo,
    ):
        progress.phase("reserve")
        undo.push_async_callback(discard, folders, backend)
        await in_thread(_reserve, folders, wanted, image.digest, resolve)

        progress.phase("upper", "cloning the writable layer")
        size = wanted.record.upper_size_bytes
        if wanted.upper is None:
            await in_thread(_make_upper, folders, image, size)
        else:
            source = wanted.upper
            await stoppable(
                lambda stop: upper.make_upper(source, folders.upper, size, progress, stop),
                progress.abandoned,
                long=True,
            )

        progress.phase("metadata")
        record = await in_thread(_save_record, folders, image, wanted, backend.name)

        if wanted.memory is None:
            way = None if wanted.cold else warm
            booting = boot(backend, record, image, folders, way, equip=equip, wait=wanted.wait, progress=progress)
        else:
            booting = moments.go_on(
                backend, record, image, folders, wanted.memory, equip=equip, wait=wanted.wait, progress=progress
            )
        booted = await booting  # undoes itself
        undo.push_async_callback(backend.kill, folders.instance)
        undo.push_async_callback(booted.connection.close)

        progress.phase("commit")
        await in_thread(folders.commit)
        undo.pop_all()
    return record, booted


def exists(name: str) -> ConflictError:
    """Return the error for a name that is taken."""
    return ConflictError(
        f"shed {name!r} already exists",
        code="SHED_ALREADY_EXISTS",
        hint=f"`shed delete {name}`, or choose another name",
    )


async def discard(folders: Folders, backend: Backend) -> None:
    """Remove what a failed create has left.

    When its VM may still run, its marker stays for a later sweep.
    """
    if backend.liveness(folders.instance) is not Liveness.NOT_OURS:
        log.warning("shed %s: its VM may still run; its folders stay until it is gone", folders.name)
        return
    try:
        await in_thread(folders.remove)
    except ShedError as error:  # the first error is the one to tell
        log.warning("shed %s: cannot remove what the create left: %s", folders.name, error)


def _trust(folders: Folders, image: str) -> None:
    Images(folders.images).trust(image, "shed create --trust-kernel")


def _reserve(folders: Folders, wanted: Plan, digest: str, resolve: Resolve) -> None:
    """Take the name.  From then on the marker keeps the image.

    It is looked at again because a prune may have come in between.
    """
    with unpruned(folders.images):
        resolve(digest)
        folders.reserve(metadata.Marker(wanted.record.name, wanted.record.image, digest, metadata.now()))


def _make_upper(folders: Folders, image: BootImage, size: int) -> None:
    upper.make_upper(upper.template(folders.templates, image.runtime, size), folders.upper, size)


def _save_record(folders: Folders, image: BootImage, wanted: Plan, backend: str) -> metadata.Record:
    uid, gid = (
        workspace.guest_owner(image.root, ImageSettings.of(image.config).user) if wanted.record.shared else (0, 0)
    )
    record = replace(
        wanted.record,
        created_at=metadata.now(),
        expires_at=expiry.after(wanted.ttl),
        lower_digest=image.digest,
        backend=backend,
        guest_uid=uid,
        guest_gid=gid,
    )
    metadata.save(folders.instance, record)
    return record
