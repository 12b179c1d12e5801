"""Checks of the machine: the VMM, acceleration, disk space, folders."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from shed.checks import Result, Status, user
from shed.errors import ShedError
from shed.images import trust
from shed.images.annotations import BootAnnotations
from shed.images.bootkit.kit import load_kit
from shed.server.doctor.host import Host
from shed.sheds.space import measure
from shed.sizes import format_size

LITTLE_SPACE, NO_SPACE = 5 << 30, 1 << 30
"""Free bytes below which there is a warning, and below which creating a shed is likely to fail."""


def vmm(host: Host) -> Iterable[Result]:
    """The VMM is here, and can be started."""
    return host.diagnostics.program()


def jail(host: Host) -> Iterable[Result]:
    """The VMM can be confined."""
    return host.diagnostics.jail()


def acceleration(host: Host) -> Iterable[Result]:
    """How guests run, found by starting one."""
    return host.diagnostics.acceleration(_kernel(host))


def disk_space(host: Host) -> Iterator[Result]:
    """There is room for images and writable layers."""
    place, uppers = _existing(host.paths.data), measure(host.paths.uppers)
    found, reserve = os.statvfs(place), host.settings.start_reserve
    free = found.f_bavail * found.f_frsize
    status = Status.FAIL if free < max(NO_SPACE, reserve) else Status.WARN if free < LITTLE_SPACE else Status.PASS
    hint = "" if status is Status.PASS else "free some space, for example: shed delete NAME, shed image prune"
    detail = (
        f"{format_size(free)} free at {place}; sheds may write {format_size(max(0, uppers.size - uppers.disk))} more"
    )
    if free < reserve:
        detail += f"; no shed is started below {format_size(reserve)} (limits.start_reserve)"
    yield Result("disk space", status, detail, hint)


def data_folders(host: Host) -> Iterator[Result]:
    """The server can write where it must, and nobody else can."""
    paths = host.paths
    if not paths.data.exists():
        place = _existing(paths.data)
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            yield Result("data folders", Status.PASS, f"{paths.data} is made when it is needed")
        else:
            yield Result(
                "data folders",
                Status.FAIL,
                f"{paths.data} cannot be made in {place}",
                "set SHED_DATA_DIR to a folder of yours",
            )
        return
    below = (
        paths.images,
        paths.instances,
        paths.uppers,
        paths.snapshots,
        paths.templates,
        paths.spares,
        paths.logs,
        paths.run,
    )
    trouble = _trouble(paths.data) or "; ".join(filter(None, (_trouble(folder) for folder in below if folder.exists())))
    if trouble:
        yield Result(
            "data folders", Status.FAIL, trouble, "the server's folders must be its user's, and writable by nobody else"
        )
    elif exposed := [
        str(folder) for folder in (paths.data, *below) if folder.exists() and folder.stat().st_mode & 0o077
    ]:
        hint = f"restart the server, which closes them, or: chmod 0700 {shlex.join(exposed)}"
        yield Result(
            "data folders",
            Status.WARN,
            f"other users can look into {', '.join(exposed)}, and hold the locks there",
            hint,
        )
    else:
        yield Result("data folders", Status.PASS, f"{paths.data}, closed to other users")


def _trouble(folder: Path) -> str:
    """Return what is wrong with `folder`, or nothing."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    status = folder.stat()
    if status.st_uid != os.geteuid():
        return f"{folder} belongs to {user(status.st_uid)}, and not to {user(os.geteuid())}"
    if status.st_mode & 0o002:
        return f"{folder} can be written to by everybody"
    if folder.is_symlink() and folder.lstat().st_uid not in {0, os.geteuid()}:
        return f"{folder} is a link of {user(folder.lstat().st_uid)}"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return f"{folder} cannot be written to"
    return ""


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _kernel(host: Host) -> Path | None:
    """Return a kernel to try: the boot kit's, else that of any image, if it is known here."""
    store = host.store
    try:
        return store.blob_path(load_kit(store).kernel)
    except ShedError:
        pass  # told by the check of the kit
    try:
        for entry in store.index().manifests:
            kernel = BootAnnotations.parse(store.read_manifest(entry.digest).annotations).kernel
            if kernel and store.has(kernel) and kernel not in trust.unknown(store, entry.digest, ()):
                return store.blob_path(kernel)
    except ShedError:
        pass  # told by the check of the images
    return None
