"""What does not come from a shed, wherever the folder is, whatever changes meanwhile, and what cannot be read."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from shed.client.dangers import danger
from shed.client.sync_rules import Rule
from shed.client.twoway.remote import Remote
from shed.errors import StorageError, UsageError
from support.guests.replica_program import UNREADABLE, Program, Sides, content, lying


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    """Two folders with nothing in them."""
    return Sides(tmp_path)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (".claude", "settings.json"), ("a/.vscode", "tasks.json"), (".husky", "pre-commit"), (".husky/_", "x"),
        (".ssh", "authorized_keys"), (".ssh/config.d", "x"), (".config/git", "config"), (".cargo", "config.toml"),
    ],
)  # fmt: skip
def test_a_folder_is_known_by_its_whole_path(sides: Sides, folder: str, name: str) -> None:
    """What programs run does not come either when the folder that is kept alike is the one that they look into."""
    sides.rule = Rule(sides.here / folder, "there", ())
    (sides.here / folder).mkdir(parents=True)
    (sides.there / name).write_text("evil")
    assert list(sides.sync()[1].left) == [name]
    assert content(sides.here / folder) == {}


def test_folders_that_are_not_kept_alike(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a repository keeps, also one without a folder of its own, the home, and what that is in."""
    subprocess.run(["git", "init", "-q", sides.here], check=True)
    subprocess.run(["git", "init", "-q", "--bare", sides.here / "bare"], check=True)
    (sides.here / ".hg").mkdir()
    (sides.here / "link").symlink_to(".git/hooks")
    for name in (".git", ".git/hooks", ".hg", "bare", "link"):
        sides.rule = Rule(sides.here / name, "there", ())
        with pytest.raises(UsageError, match="repository"):
            sides.pair()
    monkeypatch.setenv("HOME", str(sides.here))
    (sides.here / ".config").mkdir()
    for name in ("", "..", ".config"):
        sides.rule = Rule(sides.here / name, "there", ())
        with pytest.raises(UsageError, match="programs here run"):
            sides.pair()


def test_nothing_comes_into_a_repository_without_a_folder_of_its_own(sides: Sides) -> None:
    """Its settings and hooks are not a shed's to write."""
    subprocess.run(["git", "init", "-q", "--bare", sides.here / "bare"], check=True)
    sides.sync()
    (sides.there / "bare/config").write_text("[core]\n\tfsmonitor = evil\n")
    (sides.there / "bare/hooks/post-update").write_text("evil")
    assert sorted(sides.sync()[1].left) == ["bare/config", "bare/hooks/post-update"]


@pytest.mark.parametrize(
    "path",
    [
        ".bashrc", ".profile", ".zshenv", ".gitconfig", ".config/git/config", ".ssh/authorized_keys", ".vimrc",
        ".husky/_/reference-transaction", ".hg/hgrc-not-shared", "a/.HG/x", ".jj/repo/config.toml", ".svn/x",
        ".cargo/config.toml", ".cursor/hooks.json", ".gemini/settings.json", ".codex/config.toml", "lefthook.yaml",
        ".lefthook-local.yml", "mise.local.toml", ".mise/config.toml", ".yarnrc", ".pnpmfile.cjs",
    ],
)  # fmt: skip
def test_names_that_programs_run(path: str) -> None:
    """They are a danger."""
    assert danger(path, [])


@pytest.mark.parametrize("name", [".hg", ".HG", "hg~1", ".jj", ".svn", "_darcs"])
def test_what_other_repositories_keep_is_carried_neither_way(sides: Sides, name: str) -> None:
    """As little as what git keeps."""
    for side in (sides.here, sides.there):
        (side / name).mkdir()
        (side / name / f"of-{side.name}").write_text("x")
    sides.sync()
    assert sorted(content(sides.here)) == [name, f"{name}/of-here"]
    assert sorted(content(sides.there)) == [name, f"{name}/of-there"]


def test_hooks_that_are_set_meanwhile(sides: Sides) -> None:
    """From where git runs them is asked again before something comes."""
    subprocess.run(["git", "init", "-q", sides.here], check=True)
    pair, channel = sides.pair(), Program(sides.home)
    with pair.begin(remote := Remote(channel)):
        pair.refresh(remote)
        pair.cycle(remote)
        subprocess.run(["git", "-C", sides.here, "config", "core.hooksPath", "tools"], check=True)
        (sides.there / "tools").mkdir()
        (sides.there / "tools/reference-transaction").write_text("evil")
        pair.refresh(remote)
        _, outcome = pair.cycle(remote)
    channel.close()
    assert outcome.received == []
    assert list(outcome.left) == ["tools"]


def test_hooks_of_all_repositories(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is in no repository may have them, too."""
    settings = sides.home / ".gitconfig"
    settings.write_text(f"[core]\n\thooksPath = {sides.here}/hooks\n")
    monkeypatch.setenv("HOME", str(sides.home))
    (sides.here / "hooks").mkdir()
    (sides.there / "hooks").mkdir()
    (sides.there / "hooks/pre-commit").write_text("evil")
    assert list(sides.sync()[1].left) == ["hooks/pre-commit"]


def test_links_through_links(sides: Sides) -> None:
    """A link that comes leads out through no link of this machine; one to another that stays in the folder comes."""
    (sides.here / "data").symlink_to("/root")
    (sides.here / "file").write_text("x")
    (sides.here / "one").symlink_to("file")
    sides.sync()
    for name, target in (("evil", "data/notes"), ("worse", "data"), ("good", "one"), ("round", "round")):
        (sides.there / name).symlink_to(target)
    (sides.there / ".envrc").symlink_to("/etc/passwd")
    _, outcome = sides.sync(also=[".envrc", "evil"])
    assert sorted(outcome.left) == [".envrc", "evil", "round", "worse"]
    assert outcome.received == ["good"]


def test_a_folder_that_was_made_anew_deletes_nothing(sides: Sides) -> None:
    """It is another one, whatever is in it; on either side."""
    for number in range(5):
        (sides.here / str(number)).write_text("x")
    for side, other in ((sides.there, sides.here), (sides.here, sides.there)):
        sides.sync()
        shutil.rmtree(side)
        side.mkdir()
        (side / f"new-{side.name}").write_text("x")
        _, outcome = sides.sync()
        assert outcome.deleted_here == outcome.deleted_there == []
        assert "another folder" in sides.warnings[-1]
        assert content(side) == content(other)


def test_a_folder_of_which_nothing_is_left_empties_no_other(sides: Sides) -> None:
    """Although something else is in it."""
    for number in range(20):
        (sides.here / str(number)).write_text("x")
    sides.sync()
    for path in sides.there.iterdir():
        path.unlink()
    (sides.there / ".cache").write_text("x")
    with pytest.raises(Exception, match="is gone"):
        sides.sync()
    assert len(content(sides.here)) == 20


def test_files_that_come_at_once_leave_some_of_the_disk(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still to come of the others counts; and nothing half done stays when there is no room."""
    for number in range(8):
        (sides.there / str(number)).write_text("x" * 1000)
    disk = SimpleNamespace(f_bavail=(256 << 20) + 5500, f_frsize=1)
    monkeypatch.setattr("shed.client.twoway.carrying.os.statvfs", lambda path: disk)
    with pytest.raises(StorageError):
        sides.sync()
    assert content(sides.here) == {}
    disk.f_bavail += 3000
    sides.sync()
    assert len(content(sides.here)) == 8


def test_a_folder_that_cannot_be_read(sides: Sides) -> None:
    """It is told, and what was in it stays; all else is carried."""
    (sides.here / "shut").mkdir()
    (sides.here / "shut/x").write_text("x")
    sides.sync()
    (sides.there / "more").write_text("x")
    _, outcome = sides.sync(channel=lambda home: lying(home, UNREADABLE))
    assert (list(outcome.left), outcome.received, outcome.deleted_here) == (["shut"], ["more"], [])
    assert sorted(content(sides.here)) == ["more", "shut", "shut/x"]


def test_what_is_no_file_is_nothing_that_is_gone(sides: Sides) -> None:
    """On either side: the other's file stays, and it is told."""
    for mine, other in ((sides.there, sides.here), (sides.here, sides.there)):
        (other / f"of-{mine.name}").write_text("x")
        sides.sync()
        (mine / f"of-{mine.name}").unlink()
        os.mkfifo(mine / f"of-{mine.name}")
        _, outcome = sides.sync()
        assert f"of-{mine.name}" in outcome.left
        assert (other / f"of-{mine.name}").read_text() == "x"


def test_only_a_look_leaves_what_is_half_done(sides: Sides) -> None:
    """The next run removes it, unless somebody is at it, or it is not ours."""
    names = [".shed-sync-1-0123abcd-1", ".shed-sync-1-0123abcd-2", ".shed-sync-mine"]
    for side in (sides.here, sides.there):
        for name in names:
            (side / name).write_text("x")
    sides.sync(dry=True)
    assert sorted(content(sides.here)) == sorted(content(sides.there)) == names
    with (sides.here / names[1]).open() as here, (sides.there / names[1]).open() as there:
        fcntl.flock(here, fcntl.LOCK_EX)
        fcntl.flock(there, fcntl.LOCK_EX)
        sides.sync()
    assert sorted(content(sides.here)) == sorted(content(sides.there)) == names[1:]
