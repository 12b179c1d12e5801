"""What in a shared folder may run on the host by itself: looked for when a shed stops, and when somebody asks.

Bounded in entries and time; who wants all of a larger folder goes on where the last look ended.  The guest may change
the folder meanwhile, so it is walked by descriptors, without following links, and no file is read but settings.  Times
of change are the kernel's: a guest cannot set them.
"""

from __future__ import annotations

import calendar
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shed import selfrun
from shed.backends import gitconfig
from shed.errors import UsageError
from shed.fsutil import storage_errors
from shed.linux import plain
from shed.sheds.metadata import Record, seconds_of
from shed.sheds.mountspec import Mount
from shed.sheds.workspace import TARGET

LOOK = 200_000
"""Entries that one look takes in."""
LOOK_SECONDS = 5.0
STOP_LOOK, STOP_SECONDS = 100_000, 2.0
"""What a stop waits for."""
_DEPTH = 64
"""Folders in each other that are looked at."""
_TOLD = 5
_NOTHING_THERE = frozenset({"objects", "lfs"})
"""Folders of a repository that hold data alone."""
_TODO_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may run."""

    path: str
    """Below the folder."""
    why: str
    changed_at: float
    """Seconds since 1970."""
    held: bool
    """Whether a guest cannot change it, unless it was given git's settings and hooks, too."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found."""

    findings: list[Finding]
    after: str | None
    """Where the next look begins; None when all of the folder was looked at."""


def look(root: Path, *, after: str | None = None, entries: int = LOOK, seconds: float = LOOK_SECONDS) -> Look:
    """Look through `root`, behind the folder `after` of it; `entries` and `seconds` are the most that it takes.

    Raises `OSError`.
    """
    top = plain.open_folder(str(root))
    try:
        return _look(top, after, entries, seconds)
    finally:
        os.close(top)


def _look(top: int, after: str | None, entries: int, seconds: float) -> Look:
    findings: list[Finding] = []
    begin = () if after in {None, "."} else tuple(str(after).split("/"))
    end = time.monotonic() + seconds
    previous: str | None = None
    for path, folders, files, descriptor in os.fwalk(".", dir_fd=top):
        place = os.path.normpath(path)
        here = () if place == "." else tuple(place.split("/"))
        is_git = _is_git(here, folders, files)
        entries -= len(folders) + len(files)
        ahead = (
            name
            for name in folders
            if (*here, name) >= begin[: len(here) + 1] and not (is_git and name in _NOTHING_THERE)
        )
        folders[:] = sorted(ahead) if len(here) < _DEPTH else []
        if after is not None and here <= begin:
            continue
        if previous is not None and (entries <= 0 or time.monotonic() > end):
            return Look(findings, previous)
        previous = place
        findings += _in_folder(here, files, descriptor)
        if ".git" in here or ".git" in files:
            findings += _leading_elsewhere(here, [*folders, *files], descriptor)
        if is_git:
            findings += _in_repository(top, here, folders, files, descriptor)
    return Look(findings, None)


def view(record: Record, after: str | None, target: str = TARGET) -> dict[str, Any]:
    """Return one look at the folder that the shed `record` has at `target`, as the API shows it.

    Raises `UsageError`, `StorageError`.
    """
    shared = next((mount for mount in record.shared if mount.target == target), None)
    if shared is None:
        raise UsageError(
            f"shed {record.name!r} has no folder of this machine at {target}",
            code="NO_LOCAL_DIR",
            hint=f"see: shed mount ls {record.name}",
        )
    made = calendar.timegm(time.strptime(record.created_at, "%Y-%m-%dT%H:%M:%SZ"))
    with storage_errors(Path(shared.source)):
        found = look(Path(shared.source), after=after)
    return {
        "name": record.name,
        "local_dir": shared.source,
        "local_dir_mode": shared.mode,
        "findings": [{"path": one.path, "why": one.why, "changed": one.changed_at >= made} for one in found.findings],
        "after": found.after,
    }


def changed(record: Record, since: float) -> list[str]:
    """Return what to report when the shed `record` stops, one sentence each.

    It is what may run on the host, and may have changed since then.
    """
    written = [mount for mount in record.shared if mount.mode != "ro"]
    told = []
    for mount in written:
        try:
            told += _changed(record.name, mount, since, len(written))
        except OSError as error:  # what is in the others is told
            told.append(
                f"{mount.source}, to which shed {record.name!r} could write, cannot be looked at: {error.strerror}"
            )
    return told


def since(record: Record) -> float:
    """Return from when on the shed `record` may have changed what nobody was told of, in seconds since 1970."""
    try:
        return seconds_of(record.started_at or record.created_at)
    except ValueError:
        return 0.0  # all of it is told


def _changed(name: str, mount: Mount, since: float, share: int) -> list[str]:
    """Return what to report of one folder, one of `share` that a stop waits for."""
    root = mount.source
    found = look(Path(root), entries=STOP_LOOK // share, seconds=STOP_SECONDS / share)
    mine = mount.mode != "rw"
    new = [finding for finding in found.findings if finding.changed_at >= since and (mine or not finding.held)]
    told = [f"{root}/{finding.path} has changed while the shed ran: {finding.why}" for finding in new[:_TOLD]]
    if len(new) > _TOLD or found.after is not None:
        rest = (
            f"{len(new) - _TOLD} more things that may run here have changed in {root}"
            if len(new) > _TOLD
            else f"{root} is large"
        )
        which = "" if mount.target == TARGET else f" --mount {mount.target}"
        told.append(f"{rest}; to see all: shed workspace check {name}{which}")
    return told


def _is_git(here: tuple[str, ...], folders: list[str], files: list[str]) -> bool:
    return "HEAD" in files and ("objects" in folders or "commondir" in files or here[-1:] == (".git",))


def _in_folder(here: tuple[str, ...], files: list[str], descriptor: int) -> Iterator[Finding]:
    """Tell of files that run by their names, or their modes."""
    for name in files:
        status = _status(name, descriptor)
        if status is None:
            continue
        held = False
        known = selfrun.why(here[-1] if here else "", name)
        if status.st_mode & 0o6000 and stat.S_ISREG(status.st_mode):
            known = "it runs as somebody else: a set-id bit"
        if (
            here[-1:] == ("hooks",)
            and not name.endswith(".sample")
            and status.st_mode & 0o111
            and _holds_head(descriptor)
        ):
            known, held = "git runs it: a hook", True
        if here[-1:] == ("rebase-merge",) and name == "git-rebase-todo":
            lines = _read(name, descriptor, _TODO_BYTES).split(b"\n")
            known = (
                "`git rebase --continue` runs it"
                if any(line.split()[:1] in ([b"exec"], [b"x"]) for line in lines)
                else None
            )
        if known is not None:
            yield _finding(here, name, known, status, held=held)


def _leading_elsewhere(here: tuple[str, ...], names: list[str], descriptor: int) -> Iterator[Finding]:
    """Report links in a repository, and `.git` files that lead to none.

    A guest cannot make them, but it could in earlier versions.
    """
    for name in names:
        status = _status(name, descriptor)
        if status is None:
            continue
        if ".git" in here and stat.S_ISLNK(status.st_mode):
            yield _finding(
                here, name, "a link in a repository: git reads and writes what it leads to", status, held=True
            )
        if name == ".git" and stat.S_ISREG(status.st_mode) and b".git/" not in _read(name, descriptor, _TODO_BYTES):
            yield _finding(
                here,
                name,
                "git takes the folder that it names for a repository, and runs what its settings say",
                status,
                held=True,
            )


def _in_repository(
    top: int, here: tuple[str, ...], folders: list[str], files: list[str], descriptor: int
) -> Iterator[Finding]:
    """Tell of repositories among the sources, of settings that run programs, and of the hooks that they lead to."""
    status = _status("HEAD", descriptor) if ".git" not in here and "refs" in folders else None
    if status is not None:
        yield _finding(here, "HEAD", "git takes this folder for a repository, and runs what its settings say", status)
    for name in ("config", "config.worktree"):
        status = _status(name, descriptor) if name in files else None
        if status is not None:
            text = _read(name, descriptor, gitconfig.MAX_BYTES + 1)
            if programs := gitconfig.runs_programs(text):
                yield _finding(here, name, f"git runs programs by it: {', '.join(programs[:5])}", status, held=True)
            yield from _named_hooks(top, here, gitconfig.hooks_path(text))


def _named_hooks(top: int, here: tuple[str, ...], where: bytes | None) -> Iterator[Finding]:
    """Tell of hooks that a repository has among its sources."""
    if where is None or here[-1:] != (".git",):
        return
    place = os.path.normpath("/".join((*here[:-1], os.fsdecode(where))))  # text alone
    if place.startswith(("/", "..")):
        return
    with suppress(OSError):
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
        try:
            for name in sorted(os.listdir(descriptor)):  # noqa: PTH208  a descriptor
                status = _status(name, descriptor)
                if status is not None and stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
                    yield _finding((place,), name, "git runs it: core.hooksPath leads here", status)
        finally:
            os.close(descriptor)


def _finding(here: tuple[str, ...], name: str, why: str, status: os.stat_result, *, held: bool = False) -> Finding:
    return Finding(_plain("/".join((*here, name))), _plain(why), status.st_ctime, held)


def _plain(text: str) -> str:
    """Return `text` without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _status(name: str, folder: int) -> os.stat_result | None:
    with suppress(OSError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def _holds_head(folder: int) -> bool:
    return _status("../HEAD", folder) is not None


def _read(name: str, folder: int, limit: int) -> bytes:
    with suppress(OSError):
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folder)
        try:
            return os.read(file, limit) if stat.S_ISREG(os.fstat(file).st_mode) else b""
        finally:
            os.close(file)
    return b""
