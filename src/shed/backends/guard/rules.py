"""Which names a guest may make or change in a shared folder, so that git on the host runs nothing of the guest's.

Pure.

git takes programs to run from `config`, `config.worktree` and `hooks` of its *git directory*, or of the one that
`commondir` there leads to; it writes files where `index` there says, and reads those that `MERGE_RR` names.  Any folder
with an entry `HEAD` can be one; `objects` and `refs` make it whole.  The host's own git makes any of these: below
`refs` by a fetch, and among the sources whatever a branch of the guest's has.  So nothing below `.git` depends on what
a folder lacks, and the guest makes no way from a `.git` to any other place:

======  ==============================================  ============================================================
space   where                                           there
======  ==============================================  ============================================================
OUT     all else                                        no file `HEAD` is made, moved or removed; `.git` is made as
                                                        a folder alone
GIT     `.git` and below; any folder with a `HEAD`      settings and `index` only by way of their lock, if they do
                                                        no harm; no `hooks`, alternates, symbolic links; `commondir`
                                                        only for a work tree; no folder is moved: some lead to
                                                        others by where they are
CLOSED  below `hooks` there; lists of remotes in files  `*.sample` files are made, nothing else
======  ==============================================  ============================================================

Nothing is renamed or linked from one space to another.  So a folder's space never changes while a call is under way,
and it does no harm that a call is made a moment after it was allowed, beside others.

Where some file system takes two names for the same (case, characters that it ignores, short names), so do the rules.
"""

from __future__ import annotations

import enum
import re
from typing import Protocol

from shed.selfrun import fold, is_git

_SETTINGS = frozenset({b"config", b"config.worktree"})
_WRITTEN = _SETTINGS | {b"index", b"MERGE_RR"}
"""Files that say what git runs, and which files it reads and writes."""
_LOCKS = frozenset(name + b".lock" for name in _WRITTEN)
"""git writes these and renames them: one that the host has made must not be taken from it, and no other put in its
place.
"""
COPY = b"config."
"""What another supervisor's copies of settings begin with, while they are made."""
_HELD = frozenset(name.lower() for name in _WRITTEN | _LOCKS) | {
    b"commondir",
    b"hooks",
    b"alternates",
    b"http-alternates",
}
_SHORT = re.compile(rb"~[0-9]")
_STASH = b"index.stash."
"""What `git stash` makes of the index's lock."""
_PROBE = b"testing"
"""git makes a link to it, to see whether it can."""


class Folder(Protocol):
    """A folder in which a name is made or changed."""

    path: bytes
    """Absolute, on the host."""

    def holds(self, name: bytes, up: int = 0) -> bool:
        """Tell whether it has an entry `name`, or the folder `up` levels above it has."""
        ...

    def is_folder(self, name: bytes) -> bool:
        """Tell whether its entry `name` is a folder."""
        ...

    def has_submodules(self, name: bytes) -> bool:
        """Tell whether its entry `name` is, or has in it, the work tree of a submodule; or is too large to say."""
        ...

    def insensitive(self) -> bool:
        """Tell whether `head` and `HEAD` may be the same there."""
        ...


class Verdict(enum.Enum):
    """What is done with a call."""

    ALLOW = "allow"
    DENY = "deny"
    SETTINGS = "settings"
    """Put new settings in place of the old, if they may be."""
    LOCK = "lock"
    """Make the file by which settings are written, if it is not there."""
    UNLOCK = "unlock"
    """Remove it, if it is the guest's own."""
    UNSET = "unset"
    """Remove settings, if the guest has made the repository."""
    COMMON = "common"
    """Make the file that says that a work tree's common folder is two above, whatever the guest writes."""


class Space(enum.Enum):
    """See above."""

    OUT = "out"
    GIT = "git"
    CLOSED = "closed"


def space(folder: Folder) -> Space:
    """Return the space that `folder` is in."""
    parts = [fold(part) for part in folder.path.split(b"/")]
    start = next((index for index, part in enumerate(parts) if is_git(part)), None)
    if start is not None:
        refs = False
        for part in parts[start + 1 :]:
            refs = refs or part == b"refs"
            if part == b"hooks" or (part in {b"remotes", b"branches"} and not refs):
                return Space.CLOSED
        return Space.GIT
    if _SHORT.search(folder.path) and folder.insensitive():
        return Space.CLOSED
    above = (up for up, part in enumerate(reversed(parts), start=1) if part == b"hooks")
    if any(folder.holds(b"HEAD", up) for up in above):
        return Space.CLOSED
    return Space.GIT if folder.holds(b"HEAD") else Space.OUT


def write(folder: Folder, name: bytes, *, creates: bool, exclusive: bool = False) -> Verdict:
    """Open a file for writing, or make one, or (`exclusive`) only make one."""
    where = space(folder)
    if where is Space.CLOSED:
        return _verdict(name.endswith(b".sample") and folder.path.endswith(b"/hooks") and b":" not in name)
    if where is Space.GIT and creates and name == b"commondir":
        *above, place, _ = folder.path.split(b"/")
        return Verdict.COMMON if place == b"worktrees" and _in_git(above) else Verdict.DENY
    if where is Space.GIT and creates and exclusive and name in _LOCKS:
        return Verdict.LOCK
    return _verdict(not _held(folder, where, name) and not (creates and _is_head(folder, name)))


def remove(folder: Folder, name: bytes) -> Verdict:
    """Remove a file, unless it marks a bare repository, or is one of the host's.

    The host's are its settings and locks, which it is about to rename.
    """
    if _is_head(folder, name):
        return Verdict.DENY
    plain = fold(name)
    if plain not in _HELD or space(folder) is not Space.GIT:
        return Verdict.ALLOW
    if plain in _SETTINGS:
        return Verdict.UNSET
    return Verdict.UNLOCK if plain.endswith(b".lock") else Verdict.ALLOW


def make_folder(folder: Folder, name: bytes) -> Verdict:
    """Make a folder; a new one is empty."""
    where = space(folder)
    if is_git(fold(name)):
        return _verdict(where is Space.OUT and name == b".git")
    return _verdict(where is not Space.CLOSED and not _is_short(folder, name))


def make_link(folder: Folder, name: bytes, target: bytes) -> Verdict:
    """Make a symbolic link."""
    where = space(folder)
    return _verdict(_is_free(folder, where, name) and (where is Space.OUT or target == _PROBE))


def link(source: Folder, name: bytes, target: Folder, new: bytes) -> Verdict:
    """Give a file another name, by which it can be written."""
    where = space(source)
    return _verdict(where is space(target) and _is_free(source, where, name) and _is_free(target, where, new))


def rename(source: Folder, name: bytes, target: Folder, new: bytes) -> Verdict:
    """Move a file or a folder."""
    where = space(source)
    if (
        where is Space.GIT
        and source.path == target.path
        and ((new in _WRITTEN and name == new + b".lock") or (name == b"index.lock" and new.startswith(_STASH)))
    ):
        return Verdict.SETTINGS
    if where is not space(target) or not _is_free(source, where, name) or not _is_free(target, where, new):
        return Verdict.DENY
    if where is Space.GIT:
        return _verdict(not source.is_folder(name))
    if fold(name) == b"worktrees" or (
        fold(source.path.rpartition(b"/")[2]) == b"worktrees" and source.path != target.path
    ):
        return _verdict(not source.is_folder(name))  # what is below it leads to what is two folders above
    return _verdict(not source.has_submodules(name))


def _is_free(folder: Folder, where: Space, name: bytes) -> bool:
    return where is not Space.CLOSED and not _held(folder, where, name) and not _is_head(folder, name)


def _held(folder: Folder, where: Space, name: bytes) -> bool:
    """Tell whether a name is one by which git finds programs, or may stand for one."""
    plain = fold(name)
    if where is Space.GIT and (plain in _HELD or plain.startswith(COPY)):
        return True
    return is_git(plain) or _is_short(folder, name)


def _is_short(folder: Folder, name: bytes) -> bool:
    """Tell whether it may be a short name that FAT gives another one."""
    return _SHORT.search(name) is not None and folder.insensitive()


def _is_head(folder: Folder, name: bytes) -> bool:
    """Tell whether a name is the mark of a bare repository; in a `.git`, it is a file like others."""
    if fold(name) != b"head" or (name != b"HEAD" and not folder.insensitive()):
        return False
    return not _in_git(folder.path.split(b"/"))


def _in_git(parts: list[bytes]) -> bool:
    return any(is_git(fold(part)) for part in parts)


def _verdict(allowed: bool) -> Verdict:
    return Verdict.ALLOW if allowed else Verdict.DENY
