"""From a shed at rest to a ready one: start the VM, wait for the agent's first word, configure.

Shared by create and start.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shed.backends.base import MOUNTS, Connection, Disk, Machine, Share, mounted_at
from shed.backends.interface import Backend
from shed.errors import BackendError, ShedError
from shed.progress import Progress
from shed.sheds import workspace
from shed.sheds.agent import control
from shed.sheds.clock import set_clock_quietly
from shed.sheds.folders import Folders
from shed.sheds.image_settings import ImageSettings
from shed.sheds.metadata import Record
from shed.sheds.mountspec import Mount
from shed.sheds.upper import repair
from shed.threads import in_thread
from shed.untrusted import told

if TYPE_CHECKING:
    from shed.images.resolve import BootImage
    from shed.sheds.warm import Source, WarmStart

log = logging.getLogger(__name__)
_ENTROPY = 64
"""Bytes of the host's randomness that the guest is given."""
_WARM_SECONDS = 20.0
"""Most that a restored machine is waited for: booting one takes less."""

_DOING = {"claim": "taking a virtual machine that waits", "restore": "restoring the virtual machine"}
_OTHERWISE = {"claim": "restored anew", "restore": "booted"}
"""By the way of a `Source`: what is shown meanwhile, and what is done when it fails."""
_UPPER_BAD = frozenset({"SHED-INIT-04", "SHED-INIT-06", "SHED-INIT-07", "SHED-INIT-08"})
"""How the guest calls it when it cannot understand, mount or grow its upper, or have it as the writable half of its
root.
"""
_SECTOR = 512
"""Bytes, of which the guest sees its disks' sizes in full."""
_EQUIP = 10.0
"""Seconds for a guest that runs to change what its commands have."""
_LEAST = 1.0
"""Seconds that a guest gets to be ready, however late its first word was."""


def machine(record: Record, image: BootImage, folders: Folders) -> Machine:
    """Describe the VM of a shed: vda its upper, vdb the image's root, vdc the runtime."""
    shares: tuple[Share, ...] = ()
    if record.local_dir is not None:
        shares = (
            Share(workspace.TAG, Path(record.local_dir), record.guest_uid, record.guest_gid, record.local_dir_mode),
        )
    mounts = tuple(further(record, mount) for mount in record.mounted) if record.takes_mounts else None
    disks = (
        Disk(folders.upper, read_only=False),
        Disk(image.root, read_only=True),
        Disk(image.runtime, read_only=True),
    )
    return Machine(
        record.name, record.cpus, record.memory_mb, image.kernel, image.initrd, disks, folders.instance, shares, mounts
    )


def further(record: Record, mount: Mount) -> Share:
    """Return a folder of the host that a shed has beside its workspace, for its VM."""
    return Share(MOUNTS, Path(mount.source), record.guest_uid, record.guest_gid, mount.mode)


def told_of(record: Record, mount: Mount) -> dict[str, object]:
    """Return what a guest is told of such a folder; see `shed.guest.configure.request`."""
    source = mounted_at(Path(mount.source), mount.mode)
    return {"tag": MOUNTS, "source": source, "target": mount.target, "readonly": mount.mode == "ro"}


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a guest is told beside what its machine is."""

    variables: dict[str, str] = field(default_factory=dict)
    """More variables of every command."""
    authorities: list[dict[str, str]] = field(default_factory=list)
    """Certificates that programs there are to trust: what `shed.guest.configure.request.Authority` takes."""
    apt: str = ""
    """Lines of an ``apt.conf``."""


Equip = Callable[[Record], Awaitable[Outfit]]
"""Returns the outfit of a shed."""


@dataclass(frozen=True, slots=True)
class Booted:
    """A VM that is up: the link to its configured agent, and ``warm`` (it was restored) or ``cold`` (it booted)."""

    connection: Connection
    way: str


async def boot(
    backend: Backend,
    record: Record,
    image: BootImage,
    folders: Folders,
    warm: WarmStart | None,
    *,
    equip: Equip,
    wait: float,
    progress: Progress,
) -> Booted:
    """Bring the VM up, warm when `warm` is given and can; `wait` seconds from the VM's start to ready.

    On any failure the VM is gone again, its console log is kept, and the error says where.
    """
    vm = machine(record, image, folders)
    outfit, settings = await equip(record), ImageSettings.of(image.config)
    with warm.starting() if warm is not None else contextlib.nullcontext():
        sources = [] if warm is None else await warm.sources(vm)
        for source in sources:
            try:
                return Booted(
                    await _bring_up(
                        backend,
                        record,
                        vm,
                        source,
                        settings,
                        outfit=outfit,
                        wait=min(wait, _WARM_SECONDS),
                        progress=progress,
                    ),
                    "warm",
                )
            except ShedError as error:
                await backend.kill(folders.instance)
                if warm is not None and await warm.is_sheds_own(error, source):
                    await clean_up(backend, folders, error)
                    raise
                progress.warn(
                    f"restoring the virtual machine failed, so it is {_OTHERWISE[source.way]}: {_first_line(error)}"
                )
                log.warning("shed %s: coming up from %s failed: %s", record.name, source.name, error)
            except BaseException as error:
                await clean_up(backend, folders, error)
                raise
        try:
            connection = await _bring_up(
                backend, record, vm, None, settings, outfit=outfit, wait=wait, progress=progress
            )
        except BaseException as error:
            await clean_up(backend, folders, error)
            raise
        if warm is not None:
            for source in sources:
                if source.way == "restore":
                    await warm.to_blame(source.template, vm)
            warm.want(vm)
    return Booted(connection, "cold")


async def _bring_up(
    backend: Backend,
    record: Record,
    vm: Machine,
    source: Source | None,
    settings: ImageSettings,
    *,
    outfit: Outfit,
    wait: float,
    progress: Progress,
) -> Connection:
    if source is None:
        progress.phase("vm", "starting the virtual machine")
    else:
        progress.phase(source.way, _DOING[source.way])
    for warning in await (backend.start(vm) if source is None else source.start(vm)):
        progress.warn(warning)
    progress.phase("agent", "waiting for the guest")
    deadline = time.monotonic() + wait
    connection = await backend.connect(vm.state_dir, timeout=wait)
    try:
        progress.phase("configure", "mounting disks")
        left = max(_LEAST, deadline - time.monotonic())
        await configure(connection, record, settings, backend, vm.disks[:-1], outfit=outfit, wait=left)
        await set_clock_quietly(record.name, connection)
    except BaseException:
        await connection.close()
        raise
    return connection


def _first_line(error: ShedError) -> str:
    return error.message.partition("\n")[0]


async def clean_up(backend: Backend, folders: Folders, error: BaseException) -> None:
    """End the VM of a start that failed with `error`, which then says where its console is kept."""
    try:
        await backend.kill(folders.instance)
    except ShedError as problem:  # the first error is the one to tell; a VM that stays is found by its record
        log.warning("shed %s: cannot end the VM of a failed start: %s", folders.name, problem)
    kept = folders.keep_console()
    if kept is not None and isinstance(error, ShedError):
        where = f"the VM's console is kept in {kept}"
        error.hint = f"{error.hint}; {where}" if error.hint else where


async def configure(
    connection: Connection,
    record: Record,
    settings: ImageSettings,
    backend: Backend,
    disks: Sequence[Disk],
    *,
    outfit: Outfit,
    wait: float,
) -> None:
    """Send the one message that turns a guest at hello into the shed `record`, whose image has the `settings`.

    Its own `disks` are the upper and the root.

    Raises `BackendError` with the guest's numbered failure.
    """
    try:
        fields = request(record, settings, backend, disks, outfit)
        answer = await control(connection, "configure", wait=wait, **fields)
    except BackendError as error:
        if error.code in _UPPER_BAD:
            error.hint = f"free some space, if this machine's disk is full; else: {repair(disks[0].path)}"
        raise
    log.info("shed %s: guest ready, steps %s", record.name, told(answer.get("steps"), 1000))


def request(
    record: Record, settings: ImageSettings, backend: Backend, disks: Sequence[Disk], outfit: Outfit
) -> dict[str, object]:
    """Return what a guest is told that is to be the shed `record`; see `shed.guest.configure.request`."""
    own = []
    if record.local_dir is not None:
        own = [{"tag": workspace.TAG, "target": workspace.TARGET, "readonly": record.local_dir_mode == "ro"}]
    return {
        "name": record.name,
        "hostname": record.name,
        "timezone": record.timezone,
        "disks": [-(-disk.path.stat().st_size // _SECTOR) * _SECTOR for disk in disks],
        "network": backend.network and {**asdict(backend.network), "mac": _mac(record)},
        "mounts": [*own, *(told_of(record, mount) for mount in record.mounted)],
        "clock": time.time(),
        "entropy": base64.b64encode(os.urandom(_ENTROPY)).decode(),
        "init": "auto",
        "image_user": settings.user,
        "user": "shed",
        "workspace": workspace.TARGET,
        "folder": "" if record.local_dir else settings.folder,  # a folder that was asked for goes first
        "env": {**settings.env, "SHED_NAME": record.name, "SHED_WORKSPACE": workspace.TARGET},
        "variables": outfit.variables,
        "authorities": outfit.authorities,
        "apt": outfit.apt,
    }


async def equip_again(connection: Connection, outfit: Outfit) -> bool:
    """Have the commands that start in a running guest from now on have another outfit.

    Return whether its agent can do that: one of an earlier version cannot.  Raises `BackendError`.
    """
    try:
        await control(connection, "equip", wait=_EQUIP, **asdict(outfit))
    except BackendError as error:
        if error.code != "UNKNOWN_OPERATION":
            raise
        return False
    return True


def _mac(record: Record) -> str:
    """Return the address of a shed's network card, its own for as long as it lives: a local one, of 40 bits."""
    return f"02{hashlib.sha256(f'{record.name} {record.created_at}'.encode()).hexdigest()[:10]}"


async def attach(
    backend: Backend,
    record: Record,
    folders: Folders,
    resolve: Callable[[str], BootImage],
    *,
    equip: Equip,
    wait: float,
) -> Connection:
    """Return a link to the agent of a VM that runs already, configuring it when the server ended before it could.

    Raises `BackendError`; the VM is left as it is.
    """
    connection = await backend.connect(folders.instance, timeout=wait)
    try:
        state = (await control(connection, "health", wait=wait)).get("state")
        if state == "hello":
            settings = ImageSettings.of((await in_thread(resolve, record.lower_digest)).config)
            upper, outfit = Disk(folders.upper, read_only=False), await equip(record)
            await configure(connection, record, settings, backend, [upper], outfit=outfit, wait=wait)
        elif state == "frozen":  # the server ended while it kept what this shed is
            await control(connection, "thaw", wait=wait)
        elif state != "ready":
            hint = "try again when it is down" if state == "stopping" else ""
            raise BackendError(f"the guest of shed {record.name!r} is {told(state)}", code="GUEST_NOT_READY", hint=hint)
        await set_clock_quietly(record.name, connection)
    except BaseException:
        await connection.close()
        raise
    return connection
