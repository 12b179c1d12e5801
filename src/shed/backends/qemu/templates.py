"""Templates on disk: machines that were saved at hello.

::

    templates/.vm.lock                    flock: one is made at a time; never removed
    templates/.vm-….new/                  one that is being made, with the record of its VM
    templates/.vm-….gone/                 one that is being removed
    templates/vm-2cpus-2048mb-ID/         state, memory, template.json: all of it, or it is not there

ID is the beginning of the digest of everything that a restored machine must have in common with the saved one: the
whole command line, which names the blobs of the boot kit by their digests, QEMU itself, and with KVM the processor.
Whatever changes, the name does.

The memory file is mapped by every VM that was restored from it, so its bytes never change; a template is removed as a
whole, and its file lives on until the last of those VMs has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shed.backends.base import Disk, Machine, Share
from shed.backends.interface import StoredTemplate, Template
from shed.backends.qemu import accel, command
from shed.errors import StorageError
from shed.fsutil import atomic_write, data_extents, fsync_dir, locked, storage_errors
from shed.sizes import format_size

log = logging.getLogger(__name__)
MEMORY, STATE, RECORD = "memory", "state", "template.json"
LOCK = ".vm.lock"
_UNFINISHED = re.compile(r"\.vm-[0-9]+cpus-([0-9]+)mb-.*\.new")
_PART = 64 << 10
"""Bytes that are looked at together; it decides the digest, too."""
_ZEROS = bytes(_PART)
_FORMAT = 1
"""Of all that is here and not on the command line."""
_NEEDED = 512 << 20
"""Bytes that must be free for one to be made; it takes about 120 MB."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many templates are kept, and how many bytes they may take up on the disk.

    The least recently used go first.  Usually the bytes decide: there are more shapes than one thinks, since a shared
    folder makes another one.
    """

    count: int = 32
    disk_bytes: int = 2 << 30
    usual: tuple[int, int] | None = None
    """Processors and MiB of the shape whose template, the one that was used last, always stays."""


class TemplateStore:
    """The templates in `folder`."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits

    def find(self, machine: Machine, host: command.Host) -> Template | None:
        """Return the template that `machine` can be restored from on `host`.

        One that is damaged is removed, and said so in the log.
        """
        path = self._folder / _name(machine, identity(machine, host))
        if not path.exists():
            return None
        try:
            mark = check(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("template %s is damaged and will be made again: %s", path.name, error)
            self.drop(Template(path))
            return None
        with contextlib.suppress(OSError):
            os.utime(path / RECORD)  # when it was last used
        return Template(path, mark)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who makes or removes templates.

        Raises `ConflictError` (LOCKED) at once when somebody else is.
        """
        with locked(self._folder / LOCK, wait=False):
            yield

    def unfinished(self) -> dict[Path, int]:
        """Return the folders of templates that are being made, with the MiB of their machines.

        For who holds the lock, they are those whose maker was killed.
        """
        found = {path: _UNFINISHED.fullmatch(path.name) for path in sorted(self._folder.glob(".vm-*.new"))}
        return {path: int(match[1]) if match else 0 for path, match in found.items()}

    def stored(self, program: Path | None) -> Iterator[StoredTemplate]:
        """Yield the templates on the disk, without those that are being made; `program` is the QEMU here."""
        lock = self._folder / LOCK
        for path in self._folder.glob("vm-*"):
            yield StoredTemplate(path, lock, runtime_of(path, program), _last_use(path))
        for path in self._folder.glob(".vm-*.gone"):
            yield StoredTemplate(path, lock, None)

    def begin(self, machine: Machine, host: command.Host) -> Machine:
        """Return the machine to save, with its folder and placeholders for what differs.  Raises `StorageError`."""
        name = _name(machine, identity(machine, host))
        folder = self._folder / f".{name}.new"
        with storage_errors(folder):
            if (free := shutil.disk_usage(self._folder).free) < _NEEDED:
                sizes = f"{format_size(free)} free, {format_size(_NEEDED)} needed"
                raise StorageError(
                    f"no space for a template in {self._folder}: {sizes}",
                    code="NO_SPACE",
                    hint="free some space: shed system prune",
                )
            folder.mkdir(mode=0o700)
            disks = []
            for number in range(len(machine.disks) - 1):
                path = folder / f"disk{number}"
                with path.open("xb") as file:
                    file.truncate(1 << 20)
                disks.append(Disk(path, read_only=False))
            (folder / "share").mkdir(mode=0o700)
            shares = tuple(replace(share, path=(folder / "share").resolve()) for share in machine.shares)
        mounts = None if machine.mounts is None else ()
        disks = [*disks, machine.disks[-1]]
        return replace(machine, name=name, state_dir=folder, disks=tuple(disks), shares=shares, mounts=mounts)

    def publish(self, machine: Machine, host: command.Host) -> Template:
        """Give the saved `machine`, whose VM is gone, its name, and make room for it.  Raises `StorageError`."""
        folder = machine.state_dir
        target = self._folder / machine.name
        with storage_errors(target):
            for path in folder.iterdir():
                if path.name not in {MEMORY, STATE}:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            for name in (MEMORY, STATE):
                with (folder / name).open("rb") as file:
                    os.fsync(file.fileno())
            record = {
                "cpus": machine.cpus,
                "memory_mb": machine.memory_mb,
                "shares": len(machine.shares) + (machine.mounts is not None),
                "created_at": time.time(),
                "identity": identity(machine, host),
                "blobs": [machine.kernel.name, machine.initrd.name, machine.disks[-1].path.name],
                "state": digest_of(folder / STATE),
                "content": content_digest(folder / MEMORY),
                "memory_file": fingerprint(folder / MEMORY),
            }
            atomic_write(folder / RECORD, json.dumps(record, indent=1) + "\n", mode=0o600)
            self.drop(Template(target))
            folder.rename(target)
            fsync_dir(self._folder)
        self._keep_limits(target)
        return Template(target, str(record["content"]))

    def is_whole(self, template: Template) -> bool:
        """Tell whether all of a template is what was saved, and it is the one that it was."""
        try:
            return check(template.path, thoroughly=True) == template.mark
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("template %s: %s", template.path.name, error)
            return False

    def drop(self, template: Template) -> None:
        """Remove a template, if it is there.  Raises `StorageError`."""
        gone = template.path.with_name(f".{template.path.name}.gone")
        with storage_errors(gone):
            with contextlib.suppress(FileNotFoundError):
                _remove(gone)
            with contextlib.suppress(FileNotFoundError):
                template.path.rename(gone)
                _remove(gone)

    def _keep_limits(self, newest: Path) -> None:
        """Remove the least recently used until the limits hold; the newest and the usual one stay."""
        others = sorted((path for path in self._folder.glob("vm-*") if path != newest), key=_last_use, reverse=True)
        usual = next((path for path in (newest, *others) if self._is_usual(path)), newest)
        others.sort(key=lambda path: path != usual)
        room = self._limits.disk_bytes - _disk_bytes(newest)
        for kept, path in enumerate(others, start=1):
            room -= _disk_bytes(path)
            if path != usual and (kept >= self._limits.count or room < 0):
                log.info("template %s is removed: there are others that were used since", path.name)
                self.drop(Template(path))

    def _is_usual(self, path: Path) -> bool:
        return self._limits.usual is not None and path.name.startswith(_shape(*self._limits.usual))


def identity(machine: Machine, host: command.Host) -> dict[str, Any]:
    """Return all that a machine and one restored from it must have in common."""
    neutral = replace(
        machine,
        name="template",
        kernel=Path(machine.kernel.name),
        initrd=Path(machine.initrd.name),
        disks=(
            *(Disk(Path("disk"), disk.read_only) for disk in machine.disks[:-1]),
            Disk(Path(machine.disks[-1].path.name), read_only=True),
        ),
        shares=tuple(Share(share.tag, Path("share"), 0, 0) for share in machine.shares),
        mounts=None if machine.mounts is None else (),
    )
    bare = replace(host, uuid="uuid", memory=Path(MEMORY), restored=False)
    found = {"format": _FORMAT, "command": command.build(neutral, bare), "qemu": accel.version(host.program), "cpu": ""}
    if host.accel == "kvm":
        found["cpu"] = f"{platform.release()}\n{_processor()}"
    return found


def runtime_of(path: Path, program: Path | None) -> str | None:
    """Return the runtime blob that a template was made with; None when nothing will be restored from it any more.

    That is when its record cannot be read, or it was made by another QEMU than `program`, or by a shed that made
    templates otherwise.
    """
    try:
        record = json.loads((path / RECORD).read_bytes())
        found, runtime, _ = record["identity"], record["blobs"][-1], record["content"]
        if found["format"] != _FORMAT or (program is not None and found["qemu"] != accel.version(program)):
            return None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return str(runtime)


def _name(machine: Machine, found: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return _shape(machine.cpus, machine.memory_mb) + digest[:16]


def _shape(cpus: int, memory_mb: int) -> str:
    return f"vm-{cpus}cpus-{memory_mb}mb-"


def check(path: Path, *, thoroughly: bool = False) -> str:
    """Return the digest of a template's memory.

    Raises `ValueError`, `KeyError`, `TypeError` or `OSError` when it is not what was published.  The memory is not
    read, unless `thoroughly`: its times and size tell whether anybody wrote to it.
    """
    record = json.loads((path / RECORD).read_bytes())
    if thoroughly and content_digest(path / MEMORY) != record["content"]:
        raise ValueError("its memory is not what was saved")
    if digest_of(path / STATE) != record["state"]:
        raise ValueError("its state is not what was saved")
    if fingerprint(path / MEMORY) != record["memory_file"]:
        raise ValueError("its memory was written to, or copied")
    return str(record["content"])


def fingerprint(path: Path) -> list[int]:
    """Return what changes when somebody writes to a file, or copies it.  Raises `OSError`."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Return a digest of a file that is mostly holes: of what is no zeros, and where that is.

    The zeros of a memory of 2 GiB would take seconds.  Raises `OSError`.
    """
    with path.open("rb") as file:
        fd, done = file.fileno(), 0
        size = os.fstat(fd).st_size
        digest = hashlib.sha256(b"%d\n" % size)
        for start, end in data_extents(fd, size):
            for position in range(max(done, start - start % _PART), end, _PART):
                done = position + _PART
                part = os.pread(fd, _PART, position)
                if part != _ZEROS[: len(part)]:
                    digest.update(b"%d\n" % position + part)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Remove a folder, or what somebody has put in its place.  Raises `OSError`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _processor() -> str:
    """Return what this host's first processor says of itself."""
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("model name", "stepping", "microcode", "flags")))


def _last_use(path: Path) -> float:
    try:
        return (path / RECORD).stat().st_mtime
    except OSError:
        return 0.0


def _disk_bytes(path: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(file.stat().st_blocks for file in path.iterdir()) * 512
    return 0
