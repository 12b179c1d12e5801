"""Which names a guest may make: tables of places and names, and the same for every folder that a space has."""

from __future__ import annotations

import pytest

from shed.backends.guard import rules
from shed.backends.guard.rules import Space, Verdict

ALLOW, DENY, SETTINGS = Verdict.ALLOW, Verdict.DENY, Verdict.SETTINGS


class Place:
    """A folder that is only a name; `repository` when it, or the folder above its `hooks`, holds a HEAD."""

    def __init__(self, path: str, *, repository: bool = False, insensitive: bool = False) -> None:
        self.path = path.encode()
        self._repository = repository
        self._insensitive = insensitive

    def holds(self, name: bytes, up: int = 0) -> bool:
        assert name == b"HEAD"
        parts = self.path.split(b"/")
        return self._repository and (parts[-up].lower() == b"hooks" if up else b"hooks" not in parts)

    def insensitive(self) -> bool:
        return self._insensitive


OUT, GIT = Place("/s/src"), Place("/s/.git")
REFS, HOOKS = Place("/s/.git/refs/heads"), Place("/s/.git/hooks")
BARE, BARE_HOOKS = Place("/s/origin.git", repository=True), Place("/s/origin.git/hooks", repository=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/s", Space.OUT),
        ("/s/src/hooks", Space.OUT),
        ("/s/.git", Space.GIT),
        ("/s/.GIT/objects/ab", Space.GIT),
        ("/s/GIT~1", Space.GIT),
        ("/s/.g\u200cit", Space.GIT),
        ("/s/.git/modules/a/hooks/x", Space.HOOKS),
        ("/s/.git/hook\u017f", Space.HOOKS),
        ("/s/.git/logs/refs", Space.REFS),
        ("/s/.git/refs/heads/hooks", Space.REFS),
        ("/s/.gitignored", Space.OUT),
    ],
)
def test_a_path_has_a_space(path: str, expected: Space) -> None:
    """By its parts, whatever their case."""
    assert rules.space(Place(path)) is expected


def test_a_bare_repositorys_hooks_are_found_by_what_is_above_them() -> None:
    """However deep; `hooks` among sources are not."""
    assert rules.space(BARE_HOOKS) is Space.HOOKS
    assert rules.space(Place("/s/origin.git/hooks/a/b", repository=True)) is Space.HOOKS


@pytest.mark.parametrize(
    ("folder", "name", "written", "linked"),
    [
        (OUT, "config", ALLOW, ALLOW),
        (OUT, "hooks", ALLOW, ALLOW),
        (OUT, "head", ALLOW, ALLOW),
        (OUT, "HEAD", DENY, DENY),
        (Place("/s", insensitive=True), "head", DENY, DENY),
        (OUT, ".git", ALLOW, DENY),
        (OUT, ".Git", DENY, DENY),
        (OUT, "git~1", DENY, DENY),
        (OUT, ".gitattributes", ALLOW, ALLOW),
        (GIT, "HEAD", ALLOW, ALLOW),
        (GIT, "index.lock", ALLOW, ALLOW),
        (GIT, "config.lock", DENY, DENY),
        (GIT, "config", DENY, DENY),
        (GIT, "CONFIG", DENY, DENY),
        (GIT, "con\ufb01g", DENY, DENY),
        (GIT, "config.worktree", DENY, DENY),
        (GIT, "commondir", DENY, DENY),
        (GIT, "hooks", DENY, DENY),
        (GIT, ".git", DENY, DENY),
        (Place("/s/.git/modules/a"), "config", DENY, DENY),
        (Place("/s/.git/anything/at/all"), "config", DENY, DENY),
        (Place("/s/.git/worktrees/w"), "config.worktree", DENY, DENY),
        (Place("/s/.git/worktrees/w"), "gitdir", ALLOW, ALLOW),
        (Place("/s/.git/objects/info"), "alternates", DENY, DENY),
        (Place("/s/.git/info"), "attributes", ALLOW, ALLOW),
        (REFS, "config", ALLOW, ALLOW),
        (REFS, "HEAD", ALLOW, ALLOW),
        (REFS, "objects", DENY, DENY),
        (REFS, "commondir", DENY, DENY),
        (HOOKS, "pre-commit", DENY, DENY),
        (HOOKS, "pre-commit.sample", ALLOW, DENY),
        (Place("/s/.git/hooks/pre-commit.d"), "a.sample", DENY, DENY),
        (BARE, "config", DENY, DENY),
        (BARE, "HEAD", DENY, DENY),
        (BARE, "packed-refs", ALLOW, ALLOW),
        (BARE_HOOKS, "post-receive", DENY, DENY),
    ],
)
def test_a_name_is_made_or_not(folder: Place, name: str, written: Verdict, linked: Verdict) -> None:
    """As a file, and as a link or another name of a file."""
    assert rules.write(folder, name.encode(), creates=True) is written
    assert rules.make_entry(folder, name.encode()) is linked
    assert rules.link(Place("/s/docs"), b"words", folder, name.encode()) is linked


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        (OUT, ".git", ALLOW),
        (OUT, ".GIT", DENY),
        (OUT, "hooks", ALLOW),
        (GIT, "hooks", ALLOW),
        (GIT, "worktrees", ALLOW),
        (GIT, ".git", DENY),
        (REFS, "feature", ALLOW),
        (REFS, "objects", DENY),
        (HOOKS, "a", DENY),
        (BARE_HOOKS, "a", DENY),
    ],
)
def test_a_folder_is_made_or_not(folder: Place, name: str, expected: Verdict) -> None:
    """An empty folder does no harm, except where it makes a repository of one."""
    assert rules.make_folder(folder, name.encode()) is expected


@pytest.mark.parametrize(
    ("source", "name", "target", "new", "expected"),
    [
        (GIT, "config.lock", GIT, "config", SETTINGS),
        (BARE, "config.lock", BARE, "config", SETTINGS),
        (GIT, "config.worktree.lock", GIT, "config.worktree", SETTINGS),
        (OUT, "config.lock", OUT, "config", ALLOW),
        (OUT, "config.lock", GIT, "config", DENY),
        (GIT, "x.lock", GIT, "config", DENY),
        (GIT, "config", GIT, "config.old", DENY),
        (GIT, "HEAD.lock", GIT, "HEAD", ALLOW),
        (GIT, "hooks", GIT, "x", DENY),
        (GIT, "x", GIT, "hooks", DENY),
        (GIT, "refs", GIT, "x", DENY),
        (Place("/s/.git/worktrees"), "w", GIT, "w", DENY),
        (Place("/s/.git/worktrees"), "w", Place("/s/.git/modules/a"), "w", DENY),
        (OUT, ".git", OUT, "git.old", DENY),
        (OUT, "prepared", OUT, ".git", DENY),
        (OUT, "prepared", Place("/s/.git/modules"), "m", DENY),
        (Place("/s/.git/modules"), "m", OUT, "m", DENY),
        (REFS, "a", GIT, "a", DENY),
        (GIT, "a", REFS, "a", DENY),
        (REFS, "a.lock", REFS, "a", ALLOW),
        (HOOKS, "a.sample", HOOKS, "a", DENY),
        (HOOKS, "pre-commit", OUT, "a", DENY),
        (OUT, "a", HOOKS, "a.sample", DENY),
        (OUT, "project", Place("/s/elsewhere"), "project", ALLOW),
        (OUT, "HAED", OUT, "HEAD", DENY),
        (BARE, "HEAD.lock", BARE, "HEAD", DENY),
        (OUT, "hooks", BARE, "hooks", DENY),
        (BARE, "hooks", OUT, "hooks", DENY),
    ],
)
def test_a_name_is_moved_or_not(source: Place, name: str, target: Place, new: str, expected: Verdict) -> None:
    """Nothing goes from one space to another, nor does a folder that is one."""
    assert rules.rename(source, name.encode(), target, new.encode()) is expected


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [(GIT, "config", DENY), (HOOKS, "pre-commit", DENY), (BARE, "config", DENY), (GIT, "index", ALLOW), (OUT, "config", ALLOW)],
)
def test_what_is_held_gets_no_other_name(folder: Place, name: str, expected: Verdict) -> None:
    """By a second name it could be written."""
    assert rules.link(folder, name.encode(), OUT, b"alias") is expected


def test_a_work_tree_gets_its_own_way_to_the_repository() -> None:
    """And no other: whatever the guest writes, it leads two folders up, which are always those."""
    assert rules.write(Place("/s/.git/worktrees/w"), b"commondir", creates=True) is Verdict.COMMON
    assert rules.write(Place("/s/.git/modules/m/worktrees/w"), b"commondir", creates=True) is Verdict.COMMON
    for path in ("/s/.git/worktrees", "/s/.git/worktrees/w/x", "/s/.git/x/w"):
        assert rules.write(Place(path), b"commondir", creates=True) is DENY
    assert rules.write(Place("/s/.git/worktrees/w"), b"commondir", creates=False) is DENY
    assert rules.rename(GIT, b"worktrees", GIT, b"x") is DENY


def test_a_lock_is_made_where_there_is_none() -> None:
    """In a repository, and only removed by who made it; anywhere else it is a file."""
    for folder in (GIT, BARE, Place("/s/.git/modules/m")):
        assert rules.write(folder, b"config.lock", creates=True, exclusive=True) is Verdict.LOCK
        assert rules.remove(folder, b"config.lock") is Verdict.UNLOCK
        assert rules.remove(folder, b"config") is ALLOW
    assert rules.write(OUT, b"config.lock", creates=True) is ALLOW
    assert rules.remove(OUT, b"config.lock") is ALLOW


def test_what_is_there_may_be_written_but_not_made() -> None:
    """An old file HEAD among sources is a file."""
    assert rules.write(OUT, b"HEAD", creates=False) is ALLOW
