"""Two folders, made alike once and again: what is carried, what is kept aside, what is left out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shed.client.copying import CopyError
from shed.client.mirroring import AbsentError
from shed.client.sync_rules import Rule
from shed.client.twoway.remote import Remote
from shed.errors import ConflictError, UsageError
from support.guests.replica_program import Program, Sides, content


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    """Two folders that are empty."""
    return Sides(tmp_path)


def test_what_only_one_side_has_goes_to_the_other(sides: Sides) -> None:
    """Files that may be run, links, empty folders, names of any bytes; then nothing is left to be done."""
    odd = b"\xff\n\xc3".decode(errors="surrogateescape")
    (sides.here / "a/empty").mkdir(parents=True)
    (sides.here / "a/run").write_text("x")
    (sides.here / "a/run").chmod(0o750)
    (sides.here / odd).write_text("odd")
    (sides.here / "out").symlink_to("/etc/passwd")
    (sides.there / "b").mkdir()
    (sides.there / "b/run").write_text("y")
    (sides.there / "b/run").chmod(0o777)
    (sides.there / b"\xfe".decode(errors="surrogateescape")).write_text("theirs")
    (sides.there / "in").symlink_to("b/run")
    os.utime(sides.here / "a/run", ns=(1, 1_234_567_891))
    _, outcome = sides.sync()
    assert (outcome.failed, outcome.left, outcome.aside) == ({}, {}, {})
    assert content(sides.here) == content(sides.there)
    assert len(content(sides.here)) == 9
    assert (sides.there / "a/run").stat().st_mode & 0o777 == 0o750
    assert (sides.there / "a/run").stat().st_mtime_ns == 1_234_567_891
    assert (sides.here / "b/run").stat().st_mode & 0o022 == 0
    assert sides.sync()[0].idle


def test_what_changed_on_one_side_is_carried_over(sides: Sides) -> None:
    """New content of the same size and time, permissions, kinds, deletions, and names that differ by case alone."""
    for name in ("same", "run", "gone", "Case", "kind", "folder/x", "folder/y"):
        (sides.here / name).parent.mkdir(exist_ok=True)
        (sides.here / name).write_text("one")
    sides.sync()
    for mine, other in ((sides.there, sides.here), (sides.here, sides.there)):
        status = (mine / "same").stat()
        (mine / "same").write_text(mine.name[:3])
        os.utime(mine / "same", ns=(status.st_atime_ns, status.st_mtime_ns))
        (mine / "run").chmod((mine / "run").stat().st_mode ^ 0o111)
        (mine / "Case").rename(mine / "case")
        if (mine / "kind").is_dir():
            shutil.rmtree(mine / "kind")
            (mine / "kind").symlink_to("same")
            (mine / "folder").unlink()
            (mine / "folder").mkdir()
            (mine / "folder/z").write_text("z")
        else:
            (mine / "kind").unlink()
            (mine / "kind").mkdir()
            (mine / "kind/in").write_text("in")
            shutil.rmtree(mine / "folder")
            (mine / "folder").write_text("a file")
            (mine / "gone").unlink()
        _, outcome = sides.sync()
        assert (outcome.aside, outcome.failed, outcome.left) == ({}, {}, {})
        assert content(mine) == content(other)
        assert (other / "same").read_text() == mine.name[:3]
        (mine / "case").rename(mine / "Case")
        sides.sync()
        assert content(mine) == content(other)
    assert not (sides.here / "gone").exists()


def test_a_conflict_keeps_both(sides: Sides) -> None:
    """Ours has the name, the shed's is beside it on both sides, and that is told until somebody settles it."""
    for side, what in ((sides.here, "ours"), (sides.there, "theirs")):
        (side / "both").write_text(what)
        (side / "alike").write_text("alike")
        (side / "kind").mkdir()
    (sides.here / "kind").rmdir()
    (sides.here / "kind").write_text("a file")
    (sides.there / "kind/in").write_text("in a folder")
    os.utime(sides.here / "alike", (1, 1))
    _, outcome = sides.sync()
    assert outcome.aside == {"both.conflict-dev": "both", "kind.conflict-dev": "kind"}
    assert content(sides.here) == content(sides.there)
    assert (sides.here / "both").read_text() == "ours"
    assert (sides.here / "both.conflict-dev").read_text() == "theirs"
    assert (sides.here / "kind.conflict-dev/in").read_text() == "in a folder"
    (sides.here / "both").write_text("ours again")
    (sides.there / "both").write_text("theirs again")
    _, outcome = sides.sync()
    assert outcome.aside == {"both.conflict-dev-2": "both"}
    pair = sides.pair()
    program = Program(sides.home)
    with pair.begin(remote := Remote(program)):
        assert set(pair.aside) == {"both.conflict-dev", "both.conflict-dev-2", "kind.conflict-dev"}
        (sides.here / "both.conflict-dev").unlink()
        (sides.there / "both.conflict-dev-2").unlink()
        shutil.rmtree(sides.here / "kind.conflict-dev")
        pair.refresh(remote)
        pair.cycle(remote)
        assert pair.aside == {}
    program.close()


def test_what_was_changed_wins_over_what_was_deleted(sides: Sides) -> None:
    """Also in a folder that is gone on the other side, of which the rest goes."""
    for side in ("here", "there"):
        for name in ("kept", "gone"):
            (sides.here / side).mkdir(exist_ok=True)
            (sides.here / side / name).write_text("old")
    sides.sync()
    for mine, other in ((sides.here, sides.there), (sides.there, sides.here)):
        (mine / mine.name / "kept").write_text("changed")
        shutil.rmtree(other / mine.name)
    sides.sync()
    assert sorted(content(sides.here)) == ["here", "here/kept", "there", "there/kept"]
    assert content(sides.here) == content(sides.there)
    assert (sides.here / "there/kept").read_text() == "changed"


@pytest.mark.parametrize(
    "name",
    [
        ".envrc", ".vscode/tasks.json", ".VSCode/Tasks.json", ".husky/pre-commit", "sub/.npmrc", "x.code-workspace",
        "HEAD", "bare/head", "git/hooks", "nes\nted", "a\u202eb", ".envrc.", ".envrc:stream",
    ],
)  # fmt: skip
def test_what_programs_run_does_not_come(sides: Sides, name: str) -> None:
    """Not new, not changed, not deleted; unless it was named.  To the shed it goes."""
    subprocess.run(["git", "init", "-q", sides.here], check=True)
    subprocess.run(["git", "-C", sides.here, "config", "core.hooksPath", "git/hooks"], check=True)
    theirs, ours = sides.there / name, sides.here / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("evil")
    _, outcome = sides.sync()
    assert (list(outcome.left), ours.exists()) == ([name], False)
    theirs.unlink()
    ours.parent.mkdir(exist_ok=True)
    ours.write_text("good")
    _, outcome = sides.sync()
    assert (outcome.left, theirs.read_text()) == ({}, "good")
    theirs.write_text("evil")
    assert list(sides.sync()[1].left) == [name]
    assert ours.read_text() == "good"
    theirs.unlink()
    assert list(sides.sync()[1].left) == [name]
    assert ours.read_text() == "good"
    theirs.write_text("wanted")
    assert sides.sync(also=[name])[1].left == {}
    assert ours.read_text() == "wanted"


@pytest.mark.parametrize("name", [".vscode", ".Claude", "git", "git/hooks"])
def test_no_link_stands_for_a_folder_of_what_programs_run(sides: Sides, name: str) -> None:
    """What it leads to would be run."""
    subprocess.run(["git", "init", "-q", sides.here], check=True)
    subprocess.run(["git", "-C", sides.here, "config", "core.hooksPath", "git/hooks"], check=True)
    (sides.there / "harmless").mkdir()
    (sides.there / "harmless/tasks.json").write_text("evil")
    (sides.there / name).parent.mkdir(exist_ok=True)
    (sides.there / name).symlink_to("../harmless" if "/" in name else "harmless")
    assert list(sides.sync()[1].left) == [name]
    assert not os.path.lexists(sides.here / name)


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "..", "../x", "d/../../x", "d/../x", ".git/hooks/x", "d/.envrc", "x/.GIT"]
)
def test_links_that_lead_elsewhere_do_not_come(sides: Sides, target: str) -> None:
    """Those of this machine go to the shed, and stay as they are."""
    (sides.there / "link").symlink_to(target)
    (sides.here / "ours").symlink_to(target)
    _, outcome = sides.sync()
    assert list(outcome.left) == ["link"]
    assert not os.path.lexists(sides.here / "link")
    assert str((sides.there / "ours").readlink()) == target
    (sides.there / "ours").unlink()
    (sides.there / "ours").symlink_to(f"{target}/")
    assert sorted(sides.sync()[1].left) == ["link", "ours"]
    assert str((sides.here / "ours").readlink()) == target


def test_nothing_of_git_is_carried(sides: Sides) -> None:
    """Neither way, at no depth, whatever a file system takes for that name; a folder with a repository stays."""
    for side in (sides.here, sides.there):
        for name in (".git/config", "sub/.git/hooks/x", ".GIT/x", "git~1/x"):
            (side / name).parent.mkdir(parents=True, exist_ok=True)
            (side / name).write_text(side.name)
    (sides.there / "sub/file").write_text("x")
    before = content(sides.here), content(sides.there)
    sides.sync()
    assert content(sides.here) == {**before[0], "sub/file": (b"x", False)}
    shutil.rmtree(sides.there / "sub")
    _, outcome = sides.sync()
    assert outcome.failed == {}
    assert content(sides.here) == before[0]


def test_what_is_excluded_stays(sides: Sides) -> None:
    """On both sides, also in a folder that is deleted on one."""
    sides.rule = Rule(sides.here, "there", ("node_modules", "build/out"))
    for name in ("pkg/node_modules/x", "build/out/x", "pkg/y"):
        (sides.here / name).parent.mkdir(parents=True, exist_ok=True)
        (sides.here / name).write_text("x")
    (sides.there / "node_modules").mkdir()
    sides.sync()
    assert sorted(content(sides.there)) == ["build", "node_modules", "pkg", "pkg/y"]
    shutil.rmtree(sides.there / "pkg")
    sides.sync()
    kept = ["build", "build/out", "build/out/x", "pkg", "pkg/node_modules", "pkg/node_modules/x"]
    assert sorted(content(sides.here)) == kept


def test_a_shed_whose_disk_went_back_in_time_deletes_nothing(sides: Sides) -> None:
    """What came since then is carried there again."""
    (sides.here / "old").write_text("old")
    sides.sync()
    shutil.copytree(sides.home, sides.home.parent / "kept", symlinks=True)
    (sides.here / "new").write_text("new")
    sides.sync()
    shutil.rmtree(sides.home)
    (sides.home.parent / "kept").rename(sides.home)
    _, outcome = sides.sync()
    assert outcome.deleted_here == []
    assert sorted(content(sides.there)) == ["new", "old"]
    assert len(sides.warnings) == 1


@pytest.mark.parametrize("side", ["here", "there"])
def test_an_empty_folder_empties_no_other(sides: Sides, side: str) -> None:
    """A disk that is not mounted looks so; with force it is meant."""
    for number in range(20):
        (sides.here / str(number)).write_text("x")
    sides.sync()
    for path in getattr(sides, side).iterdir():
        path.unlink()
    with pytest.raises(CopyError, match="is gone") as caught:
        sides.sync()
    assert "--force" in str(caught.value.hint)
    sides.sync(force=True)
    assert content(sides.here) == content(sides.there) == {}


def test_only_a_look(sides: Sides) -> None:
    """It changes nothing on either side, and tells what would be done."""
    (sides.here / "ours").write_text("x")
    (sides.there / "theirs").write_text("x")
    for side in (sides.here, sides.there):
        (side / "both").write_text(side.name)
    before = content(sides.here), content(sides.there)
    plan, _ = sides.sync(dry=True)
    assert (plan.carry, plan.aside) == ((["theirs"], ["ours"]), ["both"])
    assert (content(sides.here), content(sides.there)) == before


def test_what_cannot_be_kept_alike_is_an_error(sides: Sides) -> None:
    """A file, nothing, and what somebody else keeps."""
    (sides.here / "file").write_text("x")
    program = Program(sides.home)
    with sides.pair().begin(Remote(program)), pytest.raises(ConflictError):
        sides.sync()
    program.close()
    sides.rule = Rule(sides.here / "file", "x")
    with pytest.raises(UsageError, match="no folder"):
        sides.pair()
    sides.rule = Rule(sides.here / "nothing", "x")
    with pytest.raises(AbsentError):
        sides.pair()
