"""Which names a guest may make: tables of places and names, and the same for every folder that a space has."""

from __future__ import annotations

import pytest

from shed.backends.guard import rules
from shed.backends.guard.rules import Space, Verdict

ALLOW, DENY, SETTINGS = Verdict.ALLOW, Verdict.DENY, Verdict.SETTINGS


class Place:
    """A folder that is only a name; `repository` when it, or the folder above its `hooks`, holds a HEAD; `folders` are
    in it.
    """

    def __init__(
        self, path: str, *, repository: bool = False, insensitive: bool = False, folders: tuple[str, ...] = ()
    ) -> None:
        self._folders = [name.encode() for name in folders]
        self.path = path.encode()
        self._repository = repository
        self._insensitive = insensitive

    def holds(self, name: bytes, up: int = 0) -> bool:
        assert name == b"HEAD"
        parts = self.path.split(b"/")
        return self._repository and (parts[-up].lower() == b"hooks" if up else b"hooks" not in parts)

    def is_folder(self, name: bytes) -> bool:
        return name in self._folders

    def has_submodules(self, name: bytes) -> bool:
        return name == b"submodule"

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
        ("/s/.git/modules/a/hooks/x", Space.CLOSED),
        ("/s/.git/hook\u017f", Space.CLOSED),
        ("/s/.git/logs/refs", Space.GIT),
        ("/s/.git/refs/heads/hooks", Space.CLOSED),
        ("/s/.git/modules/refs/x/hooks", Space.CLOSED),
        ("/s/.git/branches", Space.CLOSED),
        ("/s/.git/remotes/a", Space.CLOSED),
        ("/s/.git/refs/remotes/origin", Space.GIT),
        ("/s/.git/logs/refs/remotes/origin", Space.GIT),
        ("/s/.git./objects", Space.GIT),
        ("/s/.git::$INDEX_ALLOCATION", Space.GIT),
        ("/s/.gitignored", Space.OUT),
    ],
)
def test_a_path_has_a_space(path: str, expected: Space) -> None:
    """By its parts, whatever their case."""
    assert rules.space(Place(path)) is expected


def test_a_bare_repositorys_hooks_are_found_by_what_is_above_them() -> None:
    """However deep; `hooks` among sources are not."""
    assert rules.space(BARE_HOOKS) is Space.CLOSED
    assert rules.space(Place("/s/origin.git/hooks/a/b", repository=True)) is Space.CLOSED


@pytest.mark.parametrize(
    ("folder", "name", "written", "linked"),
    [
        (OUT, "config", ALLOW, ALLOW),
        (OUT, "hooks", ALLOW, ALLOW),
        (OUT, "head", ALLOW, ALLOW),
        (OUT, "HEAD", DENY, DENY),
        (Place("/s", insensitive=True), "head", DENY, DENY),
        (OUT, ".git", DENY, DENY),
        (OUT, ".Git", DENY, DENY),
        (OUT, "git~1", DENY, DENY),
        (OUT, ".gitattributes", ALLOW, ALLOW),
        (GIT, "HEAD", ALLOW, ALLOW),
        (GIT, "index.lock", DENY, DENY),
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
        (Place("/s/.git/hooks", insensitive=True), "pre-commit:.sample", DENY, DENY),
        (REFS, "config", DENY, DENY),
        (REFS, "config.worktree", DENY, DENY),
        (REFS, "hooks", DENY, DENY),
        (REFS, "HEAD", ALLOW, ALLOW),
        (REFS, "commondir", DENY, DENY),
        (GIT, "index", DENY, DENY),
        (GIT, "MERGE_RR", DENY, DENY),
        (GIT, "merge_rr", DENY, DENY),
        (GIT, "config.0123456789abcdef", DENY, DENY),
        (BARE, "config.0123456789abcdef", DENY, DENY),
        (OUT, "config.json", ALLOW, ALLOW),
        (Place("/s/.git/objects/inf"), "alternates", DENY, DENY),
        (Place("/s/.git/obj/info"), "http-alternates", DENY, DENY),
        (Place("/s/.git/branches"), "origin", DENY, DENY),
        (GIT, "config.", DENY, DENY),
        (GIT, "commondir .", DENY, DENY),
        (GIT, "config:x", DENY, DENY),
        (OUT, ".git.", DENY, DENY),
        (OUT, "HEAD.", ALLOW, ALLOW),
        (Place("/s", insensitive=True), "HEAD.", DENY, DENY),
        (Place("/s", insensitive=True), "head ", DENY, DENY),
        (Place("/s/.git", insensitive=True), "COMMON~1", DENY, DENY),
        (Place("/s/.git", insensitive=True), "CONFIG~1.WOR", DENY, DENY),
        (GIT, "a~1", ALLOW, ALLOW),
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
    assert rules.make_link(folder, name.encode(), b"testing") is linked
    assert rules.link(folder, b"words", folder, name.encode()) is linked
    assert rules.link(Place("/s/docs"), b"words", folder, name.encode()) is (
        linked if rules.space(folder) is Space.OUT else DENY
    )


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
        (Place("/s", insensitive=True), "GIT~2", DENY),
        (OUT, ".git.", DENY),
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
        (Place("/s/.git", folders=("refs",)), "refs", GIT, "x", DENY),
        (Place("/s/.git/worktrees", folders=("w",)), "w", GIT, "w", DENY),
        (Place("/s/.git/modules", folders=("w",)), "w", Place("/s/.git/modules"), "v", DENY),
        (Place("/s/.git/objects", folders=("inf",)), "inf", Place("/s/.git/objects"), "info", DENY),
        (Place("/s/.bare/worktrees", folders=("w",)), "w", Place("/s/x/worktrees"), "w", DENY),
        (Place("/s/.bare", folders=("worktrees",)), "worktrees", Place("/s/x"), "worktrees", DENY),
        (OUT, "submodule", OUT, "x", DENY),
        (BARE, "HEAD", BARE, "x", DENY),
        (OUT, "HEAD", OUT, "x", DENY),
        (GIT, "index.lock", GIT, "index", SETTINGS),
        (GIT, "index.lock", GIT, "index.stash.12", SETTINGS),
        (GIT, "MERGE_RR.lock", GIT, "MERGE_RR", SETTINGS),
        (GIT, "x", GIT, "MERGE_RR", DENY),
        (GIT, "index.lock", GIT, "x", DENY),
        (GIT, "index.lock", REFS, "index", DENY),
        (GIT, "config.lock", GIT, "index", DENY),
        (GIT, "index", GIT, "x", DENY),
        (GIT, "x", GIT, "index", DENY),
        (REFS, "config.lock", REFS, "config", SETTINGS),
        (OUT, ".git", OUT, "git.old", DENY),
        (OUT, "prepared", OUT, ".git", DENY),
        (OUT, "prepared", Place("/s/.git/modules"), "m", DENY),
        (Place("/s/.git/modules"), "m", OUT, "m", DENY),
        (Place("/s/.git/logs/refs/heads"), "a", Place("/s/.git/logs/refs"), ".tmp-renamed-log", ALLOW),
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
    [
        (GIT, "config", DENY),
        (HOOKS, "pre-commit", DENY),
        (BARE, "config", DENY),
        (GIT, "index", DENY),
        (OUT, "config", ALLOW),
    ],
)
def test_what_is_held_gets_no_other_name(folder: Place, name: str, expected: Verdict) -> None:
    """By a second name it could be written."""
    assert rules.link(folder, name.encode(), OUT, b"alias") is expected


def test_a_work_tree_gets_its_own_way_to_the_repository() -> None:
    """And no other: whatever the guest writes, it leads two folders up, which are always those."""
    assert rules.write(Place("/s/.git/worktrees/w"), b"commondir", creates=True) is Verdict.COMMON
    assert rules.write(Place("/s/.git/modules/m/worktrees/w"), b"commondir", creates=True) is Verdict.COMMON
    for path in ("/s/.git/worktrees", "/s/.git/worktrees/w/x", "/s/.git/x/w", "/s/worktrees/.git"):
        assert rules.write(Place(path), b"commondir", creates=True) is DENY
    assert rules.write(Place("/s/.git/worktrees/w"), b"commondir", creates=False) is DENY
    assert rules.rename(Place("/s/.git", folders=("worktrees",)), b"worktrees", GIT, b"x") is DENY


def test_a_lock_is_made_where_there_is_none() -> None:
    """In a repository, and only removed by who made it; anywhere else it is a file."""
    for folder in (GIT, BARE, Place("/s/.git/modules/m")):
        assert rules.write(folder, b"config.lock", creates=True, exclusive=True) is Verdict.LOCK
        assert rules.remove(folder, b"config.lock") is Verdict.UNLOCK
        assert rules.remove(folder, b"config") is Verdict.UNSET
        assert rules.remove(folder, b"index") is ALLOW
    assert rules.write(OUT, b"config.lock", creates=True) is ALLOW
    assert rules.remove(OUT, b"config.lock") is ALLOW


def test_a_bare_repository_stays_one() -> None:
    """Without its HEAD, nothing would say that its settings are held."""
    assert rules.remove(BARE, b"HEAD") is DENY
    assert rules.remove(OUT, b"HEAD") is DENY
    assert rules.remove(Place("/s", insensitive=True), b"head") is DENY
    assert rules.remove(OUT, b"head") is ALLOW
    assert rules.remove(GIT, b"HEAD") is ALLOW


def test_a_link_in_a_repository_leads_nowhere() -> None:
    """git tries whether it can make one; any other would bring a folder from elsewhere below `.git`."""
    assert rules.make_link(GIT, b"t0Abc", b"testing") is ALLOW
    for target in (b"../doc", b"testing/x", b""):
        assert rules.make_link(GIT, b"modules", target) is DENY
    assert rules.make_link(OUT, b"modules", b"../doc") is ALLOW


def test_what_is_there_may_be_written_but_not_made() -> None:
    """An old file HEAD among sources is a file."""
    assert rules.write(OUT, b"HEAD", creates=False) is ALLOW
