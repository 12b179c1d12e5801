"""How a folder of the host in a shed is written, ``SRC:DST[:MODE]``, and which ones a shed can have together."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from shed.backends.base import SHARE_MODES
from shed.errors import UsageError
from shed.linux.mounted import Mounts, overlap
from shed.sheds import workspace

MOST = 16
"""Folders of one shed, beside its workspace."""
_LONGEST = 1024
_LONGEST_NAME = 255
_RESERVED = ("/dev", "/proc", "/run", "/sys")
"""Folders of the guest's kernel and agent: nothing is mounted there or below."""
_SYSTEM = frozenset({
    "/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr", "/var",
})  # fmt: skip
"""Folders without which an image does not work; below them there is room."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host, `source`, that a shed has at `target`."""

    source: str
    target: str
    mode: str = SHARE_MODES[0]
    """One of `shed.backends.base.SHARE_MODES`."""

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Return what `text` means.  Raises `UsageError` (INVALID_MOUNT)."""
        rest, _, last = text.rpartition(":")
        mode = SHARE_MODES[0] if last.startswith("/") else last
        source, _, target = (rest, "", last) if last.startswith("/") else rest.rpartition(":")
        if not source or mode not in SHARE_MODES:
            raise _wrong(text, "it is not SRC:DST, or SRC:DST:MODE")
        return cls(source, _target(text, target), mode)

    def __str__(self) -> str:
        """Return it as `parse` reads it."""
        return f"{self.source}:{self.target}:{self.mode}"


def check_target(text: str) -> str:
    """Return the path in a shed that `text` names, without what says nothing.  Raises `UsageError` (INVALID_MOUNT)."""
    return _target(text, text)


def checked(texts: Iterable[str], local_dir: str | None, others: Iterable[Mount] = ()) -> list[Mount]:
    """Return the folders that a shed has which has `others` beside its workspace `local_dir`, and gets more.

    Their links are resolved.  Raises `UsageError` (INVALID_MOUNT, INVALID_LOCAL_DIR).
    """
    found = list(others)
    for text in texts:
        mount = Mount.parse(text)
        mount = replace(mount, source=workspace.check_folder(mount.source, "cannot be shared with a shed:"))
        if mount.source == "/":
            raise _wrong(text, "that is all of the host", hint="name a folder")
        check_together(mount, found, local_dir)
        found.append(mount)
    if len(found) > MOST:
        raise UsageError(
            f"a shed cannot have {len(found)} folders of its host", code="INVALID_MOUNT", hint=f"take {MOST} at most"
        )
    return found


def check_together(new: Mount, others: Sequence[Mount], local_dir: str | None) -> None:
    """Raise `UsageError` (INVALID_MOUNT) when a shed that has `others` cannot have `new`, too.

    Of two folders in each other, one would be a way around what the other may not.
    """
    workspaces = [] if local_dir is None else [Mount(local_dir, workspace.TARGET)]
    _check_apart(new, [*workspaces, *others], "share the outer one alone, or folders beside each other")
    for other in (*workspaces, *others):
        if _in_each_other(new.target, other.target):
            raise _wrong(
                str(new),
                f"the shed has {other.source} at {other.target}",
                hint=f"choose a place that is not {other.target}, nor in it or around it",
            )
    if new.target == workspace.TARGET:
        raise _wrong(str(new), f"{workspace.TARGET} is for a new shed's --local-dir", hint="choose another place")


def check_apart(name: str, shared: Sequence[Mount]) -> None:
    """Raise `UsageError` (INVALID_MOUNT) when folders that the shed `name` has are in each other by now."""
    for number, mount in enumerate(shared):
        if number:
            _check_apart(mount, shared[:number], f"take it from the shed: shed mount rm {name} {mount.target}")


def _check_apart(new: Mount, others: Sequence[Mount], hint: str) -> None:
    """Raise `UsageError` (INVALID_MOUNT) when the folder of `new` is one of `others`, in it or around it.

    That is so also when something of one is mounted in the other.
    """
    try:
        mounts = Mounts()
        parts = mounts.parts(new.source)
        for other in others:
            if _in_each_other(new.source, other.source) or overlap(parts, mounts.parts(other.source)):
                raise _wrong(
                    str(new),
                    f"{new.source} and {other.source}, which the shed has at {other.target}, are the same or in each "
                    "other",
                    hint=hint,
                )
    except OSError as error:
        why = f"it cannot be told whether it is in {error.filename}: {error.strerror}"
        raise _wrong(str(new), why, hint="put that folder back, or take it from the shed: shed mount rm") from error


def _in_each_other(one: str, other: str) -> bool:
    return posixpath.commonpath((one, other)) in {one, other}


def _target(text: str, target: str) -> str:
    path = posixpath.normpath(target)
    path = path[1:] if path.startswith("//") else path
    if not path.startswith("/") or ".." in target.split("/"):
        raise _wrong(text, "the place in the shed is not an absolute path")
    if ":" in path or not path.isprintable():
        raise _wrong(text, "the place in the shed has a character that cannot be in it")
    if len(path.encode()) > _LONGEST or any(len(part.encode()) > _LONGEST_NAME for part in path.split("/")):
        raise _wrong(text, "the place in the shed is too long")
    if path in _SYSTEM or any(path == one or path.startswith(f"{one}/") for one in _RESERVED):
        raise _wrong(text, f"{path} belongs to the shed's system")
    return path


def _wrong(text: str, why: str, *, hint: str = "for example ~/data:/data, or ~/data:/data:ro") -> UsageError:
    return UsageError(f"{text[:300]!r} cannot be mounted: {why}", code="INVALID_MOUNT", hint=hint)
