"""Bringing folders into a shed, one way: with its programs run here, and its folder one of ours."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shed.client.copying import CopyError
from shed.client.mirroring import Mirror, Plan
from shed.client.sync_rules import SNIPPET, Rule, read_rules
from shed.errors import NotFoundError, UsageError

SOURCE = Path(__file__).parents[3] / "src"


class Shed:
    """Runs what is meant for a shed with `home` as its folder, and keeps no other state."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()

    def __call__(self, command: list[str], stdin: Callable[[BinaryIO], None] | None = None) -> bytes:
        """Run the Python program of a command, as the runtime would."""
        given = io.BytesIO()
        if stdin is not None:
            stdin(given)
        program = command[4].replace("/run/shed-runtime/agent", str(SOURCE))
        done = subprocess.run(
            [sys.executable, "-c", program, *command[5:]],
            input=given.getvalue(),
            capture_output=True,
            cwd=self.home,
            env={**os.environ, "HOME": str(self.home)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def shed(tmp_path: Path) -> Shed:
    """A shed."""
    return Shed(tmp_path / "shed")


def bring(shed: Shed, rule: Rule, *, force: bool = False) -> Plan:
    """Do what a rule wants, after which nothing is left to be done."""
    mirror = Mirror(shed)
    plan = mirror.plan(rule, force=force)
    mirror.carry_out(plan, pytest.fail)
    again = mirror.plan(rule, force=force)
    assert (again.send, again.delete, again.newer) == ([], [], plan.newer)
    return plan


def content(folder: Path) -> dict[str, object]:
    """Return what is below a folder: what files hold, where links lead, and the modes and times of all but those."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        what = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        kept = () if path.is_symlink() else (status.st_mode, 0 if path.is_dir() else status.st_mtime_ns)
        found[str(path.relative_to(folder))] = (what, *kept)
    return found


def test_what_differs_is_sent_and_nothing_else(shed: Shed, tmp_path: Path) -> None:
    """Times to the nanosecond, modes, links as links; what is deleted here stays there, unless it is to go."""
    here = tmp_path / "here"
    (here / "deep/er").mkdir(parents=True)
    (here / "deep/er/a").write_text("a")
    (here / "deep/er/a").chmod(0o755)
    os.utime(here / "deep/er/a", ns=(1, 1_234_567_891))
    (here / "link").symlink_to("/etc/passwd")
    (here / "strange\n é").write_text("b")
    rule = Rule(here, "~/there")
    assert bring(shed, rule).send == ["deep", "link", "strange\n é", "deep/er", "deep/er/a"]
    there = shed.home / "there"
    assert content(there) == content(here)
    assert bring(shed, rule).send == []
    (here / "link").unlink()
    (here / "deep/er/a").write_text("changed")
    assert bring(shed, rule).send == ["deep/er/a"]
    assert (there / "link").is_symlink()
    assert bring(shed, Rule(here, "there", delete=True)).delete == ["link"]
    assert content(there) == content(here)


def test_what_is_newer_there_is_left_and_told(shed: Shed, tmp_path: Path) -> None:
    """Unless the user insists."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "a").write_text("ours")
    os.utime(here / "a", (1, 1000))
    bring(shed, Rule(here, "x"))
    (shed.home / "x/a").write_text("theirs")
    assert bring(shed, Rule(here, "x")).newer == ["a"]
    assert (shed.home / "x/a").read_text() == "theirs"
    assert bring(shed, Rule(here, "x"), force=True).send == ["a"]
    assert (shed.home / "x/a").read_text() == "ours"


def test_what_is_excluded_is_neither_sent_nor_deleted(shed: Shed, tmp_path: Path) -> None:
    """A name at any depth, with all below it; a path; and what matches."""
    here = tmp_path / "here"
    for name in ("node_modules/x", "a/node_modules/y", "build/out/z", "a/build/out/kept", "b.pyc", "c.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    (shed.home / "node_modules").mkdir()
    (shed.home / "node_modules/theirs").write_text("x")
    (shed.home / "gone").write_text("x")
    rule = Rule(here, ".", ("node_modules", "build/out", "*.pyc"), delete=True)
    assert bring(shed, rule).delete == ["gone"]
    files = {str(path.relative_to(shed.home)) for path in shed.home.rglob("*") if path.is_file()}
    assert files == {"node_modules/theirs", "a/build/out/kept", "c.py"}


def test_one_file(shed: Shed, tmp_path: Path) -> None:
    """It gets the name that the rule has, or goes into the folder; that folder's own mode stays."""
    (tmp_path / "gitconfig").write_text("[user]")
    shed.home.chmod(0o711)
    bring(shed, Rule(tmp_path / "gitconfig", "~/.gitconfig"))
    bring(shed, Rule(tmp_path / "gitconfig", "~/.config/git/"))
    assert (shed.home / ".gitconfig").read_text() == (shed.home / ".config/git/gitconfig").read_text() == "[user]"
    assert shed.home.stat().st_mode & 0o777 == 0o711
    with pytest.raises(NotFoundError, match=r"there is no .*nothing"):
        bring(shed, Rule(tmp_path / "nothing", "~"))


def test_what_is_of_another_kind_there_stays(shed: Shed, tmp_path: Path) -> None:
    """A folder with work in it is no file or link until the user says so; below a newer file nothing is sent."""
    here = tmp_path / "here"
    (here / "b").mkdir(parents=True)
    (here / "a").write_text("a file")
    (here / "b/c").write_text("x")
    os.utime(here / "b", (1, 1))
    (shed.home / "x/a").mkdir(parents=True)
    (shed.home / "x/a/work").write_text("of a week")
    (shed.home / "x/b").write_text("newer")
    plan = bring(shed, Rule(here, "x"))
    assert (plan.send, plan.delete, plan.newer) == ([], [], ["a", "b"])
    assert (shed.home / "x/a/work").read_text() == "of a week"
    plan = bring(shed, Rule(here, "x"), force=True)
    assert (plan.send, plan.delete) == (["a", "b", "b/c"], ["b", "a/work", "a"])
    assert content(shed.home / "x") == content(here)


def test_a_folder_stays_when_what_is_excluded_is_in_it(shed: Shed, tmp_path: Path) -> None:
    """All else in it goes."""
    here = tmp_path / "here"
    here.mkdir()
    (shed.home / "pkg/node_modules").mkdir(parents=True)
    (shed.home / "pkg/node_modules/x").write_text("x")
    (shed.home / "pkg/y").write_text("y")
    assert bring(shed, Rule(here, ".", ("node_modules",), delete=True)).delete == ["pkg/y"]
    assert (shed.home / "pkg/node_modules/x").exists()


@pytest.mark.parametrize("target", ["~", ".", "empty", "full"])
def test_a_file_is_no_folder(shed: Shed, tmp_path: Path, target: str) -> None:
    """The user is told how to put it into one."""
    (shed.home / "empty").mkdir()
    (shed.home / "full").mkdir()
    (shed.home / "full/x").write_text("x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError) as caught:
        Mirror(shed).plan(Rule(tmp_path / "file", target), force=True)
    assert caught.value.hint == f"write {target}/"


def test_nothing_behind_a_link_that_has_come_meanwhile_is_sent(shed: Shed, tmp_path: Path) -> None:
    """A guest may write to the folder, too, and make a link of one in it once its names were read."""
    here = tmp_path / "here"
    (here / "d").mkdir(parents=True)
    (here / "d/key").write_text("x")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    mirror = Mirror(shed)
    plan = mirror.plan(Rule(here, "x"), force=False)
    (here / "d").rename(here / "e")
    (here / "d").symlink_to(tmp_path / "secret")
    with pytest.raises(CopyError, match="cannot read"):
        mirror.carry_out(plan, pytest.fail)
    assert not (shed.home / "x/d/key").exists()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"/x\x00-1 1 1 a\x00\x00",
        b"/x\x00" + b"7" * 40 + b" 1 1 a\x00\x00",
        b"/x\x00100644 1 1\x00\x00",
        b"/x\x00100644 1 1 a\x00",
        b"/x\x00100644 1 - a\x00\x00",
        b"\0" * 2_000_000,
    ],
)
def test_a_shed_that_lies_is_an_error(tmp_path: Path, answer: bytes) -> None:
    """One sentence, whatever it says, and soon."""
    (tmp_path / "here").mkdir()
    with pytest.raises(CopyError, match="the shed"):
        Mirror(lambda command, stdin=None: answer).plan(Rule(tmp_path / "here", "x"), force=False)


NAMES = st.sampled_from(["a", "b", "a/c", "a/d", "b/c", "b/c/e", "a-b"])
TREES = st.dictionaries(NAMES, st.sampled_from(["one", "two", "folder", "link"]), max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES, TREES)
def test_any_folder_becomes_any_other(
    tmp_path_factory: pytest.TempPathFactory, ours: dict[str, str], theirs: dict[str, str]
) -> None:
    """Files become folders and links, and the other way round; what is behind a link of theirs stays as it is."""
    root = tmp_path_factory.mktemp("trees")
    shed, here = Shed(root / "shed"), root / "here"
    (root / "outside").mkdir()
    (root / "outside/kept").write_text("x")
    (shed.home / "x").mkdir()
    here.mkdir()
    for folder, tree in ((here, ours), (shed.home / "x", theirs)):
        for name, kind in sorted(tree.items()):
            path = folder / name
            if any(parent.is_symlink() or parent.is_file() for parent in path.parents if parent != folder):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                path.mkdir(exist_ok=True)
            elif kind == "link":
                path.symlink_to(root / "outside")
            elif not path.exists():
                path.write_text(kind)
    bring(shed, Rule(here, "x", delete=True), force=True)
    assert content(shed.home / "x") == content(here)
    assert (root / "outside/kept").read_text() == "x"


@pytest.mark.parametrize(
    "text",
    [
        "profiles: [",
        "[]",
        "profiles: []",
        "profile: {}",
        "profiles: {default: {}}",
        "profiles: {default: [x]}",
        "profiles: {default: [{from: /a}]}",
        "profiles: {default: [{from: a, to: b}]}",
        "profiles: {default: [{from: /a, to: b, exclud: []}]}",
        "profiles: {default: [{from: /a, to: b, exclude: x}]}",
        "profiles: {default: [{from: /a, to: b, exclude: ['']}]}",
        "profiles: {default: [{from: /a, to: b, delete: 1}]}",
        'profiles: {default: [{from: /a, to: "b\\0"}]}',
    ],
)
def test_rules_that_are_wrong_are_told(tmp_path: Path, text: str) -> None:
    """With the file's name."""
    path = tmp_path / "sync.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"sync\.yaml") as caught:
        read_rules(path, "default")
    assert caught.value.code == "INVALID_CONFIG"


def test_rules_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example that is shown when there is no file is one."""
    path = tmp_path / "sync.yaml"
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(NotFoundError) as caught:
        read_rules(path, "default")
    assert SNIPPET in str(caught.value.hint)
    path.write_text(SNIPPET)
    assert read_rules(path, "default") == [Rule(Path("/home/me/.gitconfig"), "~/.gitconfig")]
    with pytest.raises(NotFoundError, match="no profile 'x'"):
        read_rules(path, "x")
