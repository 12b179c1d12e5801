"""Which names a guest may make or change in a shared folder, so that git on the host runs nothing of the guest's.  Pure.

git takes programs to run from `config`, `config.worktree` and `hooks` of its *git directory*, or of the one that `commondir` there
leads to.  A git directory has an entry `HEAD`, and (without a `commondir`) `objects`.  Any folder can be one: a `.git` file, a link and the
search for bare repositories lead there.  So what counts is where such entries can be, whatever leads to them and whoever made them:

========  =========================================  ==================================================================
space     where                                      there
========  =========================================  ==================================================================
OUT       not below a `.git`                         no `HEAD` is made; where one is already (a bare repository) as in GIT
GIT       `.git`, and below                          no `hooks` are made; `config` only by `gitconfig`; `commondir` only for a work tree
REFS      below its `refs`, `logs`                   branches may have any name, but no `objects` and `commondir` are made
HOOKS     below its `hooks`                          `*.sample` files are made, nothing else
========  =========================================  ==================================================================

A folder's space never changes while a call is under way: nothing is renamed from one space to another, nor is a folder that names one.
So it does no harm that a call is made a moment after it was allowed, beside others.

The rules do not look at files' types, which may change in that moment.  Where some file system takes two names for the same (upper and
lower case; characters that it ignores), so do they.
"""

from __future__ import annotations

import enum
from typing import Protocol

_GIT = frozenset({b".git", b"git~1"})
"""The second is the short name that FAT gives the first."""
_SETTINGS = frozenset({b"config", b"config.worktree"})
_LOCKS = frozenset(name + b".lock" for name in _SETTINGS)
"""git writes these and renames them: one that the host has made must not be taken from it, and no other put in its place."""
_REDIRECTS = frozenset({b"commondir"})
_PLACES = frozenset({b"hooks", b"refs", b"logs", b"worktrees"})
"""Folders by whose name a space begins; and `worktrees`, whose folders lead to what is two folders above them."""
_HELD = _SETTINGS | _LOCKS | _REDIRECTS | _PLACES
_HEAD = b"head"


class Folder(Protocol):
    """A folder in which a name is made or changed."""

    path: bytes
    """Absolute, on the host."""

    def holds(self, name: bytes, up: int = 0) -> bool:
        """Tell whether it has an entry `name`, or the folder `up` levels above it has."""
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
    COMMON = "common"
    """Make the file that says that a work tree's common folder is two above, whatever the guest writes."""


class Space(enum.Enum):
    """See above."""

    OUT = "out"
    GIT = "git"
    REFS = "refs"
    HOOKS = "hooks"


def fold(name: bytes) -> bytes:
    """Return what file systems that take some names for the same may take `name` for."""
    if not name.isascii():
        import unicodedata  # noqa: PLC0415  for few

        text = unicodedata.normalize("NFKD", name.decode(errors="ignore").casefold())
        name = text.encode("ascii", errors="ignore")
    return name.lower()


def space(folder: Folder) -> Space:
    """Return the space that `folder` is in."""
    parts = [fold(part) for part in folder.path.split(b"/")]
    start = next((index for index, part in enumerate(parts) if part in _GIT), None)
    if start is not None:
        for part in parts[start + 1 :]:
            if part in {b"refs", b"logs"}:
                return Space.REFS
            if part == b"hooks":
                return Space.HOOKS
        return Space.GIT
    above = (up for up, part in enumerate(reversed(parts), start=1) if part == b"hooks")
    return Space.HOOKS if any(folder.holds(b"HEAD", up) for up in above) else Space.OUT


def write(folder: Folder, name: bytes, *, creates: bool, exclusive: bool = False) -> Verdict:
    """Open a file for writing, or make one, or (`exclusive`) only make one."""
    where, plain = space(folder), fold(name)
    if plain in _GIT:  # a `.git` file leads to a git directory, and all of them are held
        return _verdict(where is Space.OUT and name == b".git")
    if where is Space.HOOKS:
        return _verdict(name.endswith(b".sample") and fold(folder.path.rpartition(b"/")[2]) == b"hooks")
    if where is Space.GIT and creates and name == b"commondir" and folder.path.split(b"/")[-2] == b"worktrees":
        return Verdict.COMMON
    if creates and exclusive and name in _LOCKS and _is_repository(folder, where):
        return Verdict.LOCK
    return _verdict(not _held(folder, where, name, plain, entry=creates))


def remove(folder: Folder, name: bytes) -> Verdict:
    """Remove a name: anything but a lock of the host's, which it is about to rename."""
    return Verdict.UNLOCK if fold(name) in _LOCKS and _is_repository(folder, space(folder)) else Verdict.ALLOW


def make_folder(folder: Folder, name: bytes) -> Verdict:
    """Make a folder; a new one is empty."""
    where, plain = space(folder), fold(name)
    if plain in _GIT:
        return _verdict(where is Space.OUT and name == b".git")
    return _verdict(where is not Space.HOOKS and not (where is Space.REFS and plain == b"objects"))


def make_entry(folder: Folder, name: bytes) -> Verdict:
    """Make a symbolic link, or another name of a file."""
    where, plain = space(folder), fold(name)
    return _verdict(plain not in _GIT and where is not Space.HOOKS and not _held(folder, where, name, plain, entry=True))


def link(source: Folder, name: bytes, target: Folder, new: bytes) -> Verdict:
    """Give a file another name, by which it can be written."""
    where, plain = space(source), fold(name)
    if plain in _GIT or where is Space.HOOKS or _held(source, where, name, plain, entry=False):
        return Verdict.DENY
    return make_entry(target, new)


def rename(source: Folder, name: bytes, target: Folder, new: bytes) -> Verdict:
    """Move a file or a folder."""
    where, plain = space(source), fold(name)
    if new in _SETTINGS and name == new + b".lock" and source.path == target.path and _is_repository(source, where):
        return Verdict.SETTINGS
    if plain in _GIT or where is Space.HOOKS or where is not space(target) or _held(source, where, name, plain, entry=False):
        return Verdict.DENY
    if where is Space.GIT and fold(source.path.rpartition(b"/")[2]) == b"worktrees":
        return Verdict.DENY
    return make_entry(target, new)


def _held(folder: Folder, where: Space, name: bytes, plain: bytes, *, entry: bool) -> bool:
    """Tell whether a name is one by which git finds programs, or becomes one with what is there; `entry` when it comes to be."""
    if where is Space.REFS:
        return plain in {b"objects", b"commondir"}
    if where is Space.GIT:
        alternates = plain.endswith(b"alternates") and fold(folder.path).endswith(b"/objects/info")
        return plain in _HELD or alternates
    if plain == _HEAD:
        return entry and (name == b"HEAD" or folder.insensitive())
    return plain in _HELD and folder.holds(b"HEAD")


def _is_repository(folder: Folder, where: Space) -> bool:
    return where is Space.GIT or (where is Space.OUT and folder.holds(b"HEAD"))


def _verdict(allowed: bool) -> Verdict:
    return Verdict.ALLOW if allowed else Verdict.DENY
