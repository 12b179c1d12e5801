"""Patches of what has changed in a repository: made by git as in a shed, and applied by the git of this machine."""

from __future__ import annotations

import base64
import os
import subprocess
import zlib
from pathlib import Path

import pytest

from shed.client import applying
from shed.client.applying import Patch
from shed.client.patches import PatchError, script
from shed.errors import NotFoundError, UsageError

EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def git(folder: Path, *words: str) -> str:
    """Run git as somebody, and return what it prints."""
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True)
    return done.stdout


def made(folder: Path, base: str | None = None) -> bytes:
    """Return the patch, made as in a shed."""
    text, env = script(base)
    done = subprocess.run(["sh", "-c", text], cwd=folder, env={**os.environ, **env}, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A repository of this machine."""
    folder = tmp_path / "here"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("one\ntwo\nthree\n")
    (folder / "gone.txt").write_text("gone\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def there(here: Path) -> Path:
    """Its clone in a shed."""
    folder = here.parent / "there"
    git(here, "clone", "-q", "--depth=1", f"file://{here}", str(folder))
    return folder


def taken(here: Path, data: bytes, *also: str, merge: bool = False) -> tuple[list[str], dict[str, str]]:
    """Apply a patch, and return the paths that were changed, and why the others were not."""
    file = here.parent / "patch"
    file.write_bytes(data)
    patch = Patch(file, here)
    changes = patch.changes()
    applied = [change.path for change in patch.apply(changes, also, check=False, merge=merge)]
    return applied, {change.path: change.danger for change in changes if change.path not in applied}


def test_all_that_has_changed_comes(here: Path, there: Path) -> None:
    """What is committed, what is not, and what git was not told of; not what it ignores.  The index stays as it is."""
    (there / "a.txt").write_text("one\n2\nthree\n")
    git(there, "commit", "-qam", "second")
    (there / "new").mkdir()
    (there / "new/data").write_bytes(bytes(range(256)))
    (there / ".gitignore").write_text("ignored\n")
    (there / "ignored").write_text("x")
    (there / "gone.txt").unlink()
    (there / "run.sh").write_text("#!/bin/sh\n")
    (there / "run.sh").chmod(0o755)
    before = git(there, "status", "--porcelain")
    applied, left = taken(here, made(there))
    assert (sorted(applied), left) == ([".gitignore", "a.txt", "gone.txt", "new/data", "run.sh"], {})
    assert (here / "a.txt").read_text() == "one\n2\nthree\n"
    assert (here / "new/data").read_bytes() == bytes(range(256))
    assert os.access(here / "run.sh", os.X_OK)
    assert not (here / "gone.txt").exists()
    assert git(here, "diff", "--cached") == ""
    assert git(there, "status", "--porcelain") == before
    assert made(there, "HEAD~0").count(b"diff --git") == 4
    assert made(there) == made(there / "new")


def test_what_upstream_has_is_not_in_it(here: Path, there: Path) -> None:
    """A pull in the shed brings nothing into the patch; of a commit that was fetched alone, the first one counts."""
    (here / "b.txt").write_text("upstream\n")
    git(here, "add", ".")
    git(here, "commit", "-qm", "more")
    git(there, "pull", "-q")
    assert made(there) == b""
    git(there, "checkout", "-q", "--detach")
    (there / "c.txt").write_text("mine\n")
    assert b"c.txt" in made(there)
    bare = here.parent / "bare"
    bare.mkdir()
    git(bare, "init", "-q")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        made(bare)
    assert failed.value.returncode == 93
    with pytest.raises(subprocess.CalledProcessError) as failed:
        made(there, "--output=/tmp/x")
    assert failed.value.returncode == 92
    with pytest.raises(subprocess.CalledProcessError) as failed:
        made(here.parent)
    assert failed.value.returncode == 91


def test_what_runs_by_itself_is_left_out(here: Path, there: Path) -> None:
    """Links, submodules and what programs take commands from come when they are named, and alone."""
    (there / "sub").mkdir()
    git(there / "sub", "init", "-q")
    (there / "sub/x").write_text("x")
    git(there / "sub", "add", ".")
    git(there / "sub", "commit", "-qm", "x")
    for name in (".envrc", ".VSCODE/Tasks.json", "deep/.vscode/tasks.json", "[x]*.txt", "line\nend", "plain.txt"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("x")
    (there / "link").symlink_to("/etc/passwd")
    (there / "two\n create mode 100644 link").write_text("so that the link seems plain")
    (there / "hidden\nlink").symlink_to("/etc/passwd")
    git(there, "-c", "advice.addEmbeddedRepo=false", "add", "sub")
    data = made(there)
    applied, left = taken(here, data)
    assert sorted(applied) == ["[x]*.txt", "plain.txt"]
    shown = "its name has characters that cannot be shown"
    assert left == {
        ".envrc": "direnv runs it, once you have allowed it",
        ".VSCODE/Tasks.json": "Visual Studio Code runs tasks from it",
        "deep/.vscode/tasks.json": "Visual Studio Code runs tasks from it",
        "sub": "a commit of another repository",
        "link": "a symbolic link",
        "line\nend": shown,
        "two\n create mode 100644 link": shown,
        "hidden\nlink": shown,
    }
    assert not (here / "link").is_symlink()
    git(here, "clean", "-qfd")
    applied, left = taken(here, data, "link", "line\nend")
    assert {"link", "line\nend"} < set(applied)
    assert (here / "link").is_symlink()
    assert not (here / ".envrc").exists()
    with pytest.raises(UsageError, match="does not change nothing"):
        taken(here, data, "nothing")


def test_a_link_that_is_there_is_not_led_elsewhere(here: Path, there: Path) -> None:
    """git says nothing of its mode then."""
    for folder, target in ((here, "a.txt"), (there, "a.txt")):
        (folder / "link").symlink_to(target)
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "a link")
    (there / "link").unlink()
    (there / "link").symlink_to("/etc/passwd")
    applied, left = taken(here, made(there, "HEAD"))
    assert (applied, left) == ([], {"link": "a symbolic link"})
    assert (here / "link").readlink() == Path("a.txt")


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("120777", "a symbolic link"),
        ("1120000", "a symbolic link"),
        ("20120000", "a symbolic link"),
        ("160777", "a commit of another repository"),
        ("104755", "it has a mode of another kind"),
    ],
)
def test_a_mode_that_git_takes_for_another_is_seen(here: Path, mode: str, kind: str) -> None:
    """git reads any number, and looks at some of its bits."""
    content = b"Subproject commit " + b"a" * 40 if mode.startswith("16") else b"/etc/passwd"
    head = f"diff --git a/s b/s\nnew file mode {mode}\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n+"
    applied, left = taken(here, head.encode() + content + b"\n\\ No newline at end of file\n")
    assert (applied, left) == ([], {"s": kind})


@pytest.mark.parametrize(
    "path",
    [".githooks/post-index-change", ".GitHooks/x", "x/HEAD", "x/y/head", ".husky/pre-commit", "a.code-workspace"],
)
def test_what_git_would_run_is_left_out(here: Path, path: str) -> None:
    """Hooks that are among the sources, and what makes a repository of a folder."""
    git(here, "config", "core.hooksPath", ".githooks")
    patch = f"diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
    applied, left = taken(here, patch.encode())
    assert (applied, [*left]) == ([], [path])


def test_a_patch_that_is_made_to_cost_much(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is too long is left out; too many to leave out, and what unpacks to more than git may have, are not
    taken.
    """
    new = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+x\n"
    applied, left = taken(here, new.format("x" * 300).encode() + new.format("b.txt").encode())
    assert (applied, left) == (["b.txt"], {"x" * 300: "File name too long"})
    many = "".join(new.format(f"{number}/.envrc") for number in range(2000)) + new.format("c.txt")
    with pytest.raises(PatchError, match="too many"):
        taken(here, many.encode())
    monkeypatch.setattr(applying, "_GIT", applying._GIT.replace("2097152", "131072"))
    packed = zlib.compress(bytes(160 << 20), 1)
    lines = [packed[at : at + 52] for at in range(0, len(packed), 52)]
    letters = [chr(len(line) + (64 if line and len(line) <= 26 else 70)) for line in lines]
    encoded = [letter.encode() + base64.b85encode(line, pad=True) for letter, line in zip(letters, lines, strict=True)]
    head = "diff --git a/big b/big\nnew file mode 100644\nindex {0}..{1}\nGIT binary patch\nliteral {2}\n"
    ids = head.format("0" * 40, "1" * 40, 160 << 20).encode()
    with pytest.raises(PatchError, match=r"memory|malloc"):
        taken(here, ids + b"\n".join(encoded) + b"\n\nliteral 0\nHcmV?d00001\n\n")


HOSTILE = {
    "out of the folder": b"--- /dev/null\n+++ b/../out\n@@ -0,0 +1 @@\n+x\n",
    "into git": b"--- /dev/null\n+++ b/.git/hooks/pre-commit\n@@ -0,0 +1 @@\n+x\n",
    "into git, in capitals": b"--- /dev/null\n+++ b/.GIT/config\n@@ -0,0 +1 @@\n+x\n",
    "through a link": b"--- /dev/null\n+++ b/way/out\n@@ -0,0 +1 @@\n+x\n",
    "by a new link": (
        b"diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+..\n"
        b"\\ No newline at end of file\n--- /dev/null\n+++ b/l/out\n@@ -0,0 +1 @@\n+x\n"
    ),
    "by moving": b"diff --git a/a.txt b/.envrc\nsimilarity index 100%\nrename from a.txt\nrename to .envrc\n",
    "by copying": b"diff --git a/a.txt b/.envrc\nsimilarity index 100%\ncopy from a.txt\ncopy to .envrc\n",
    "nothing": b"hello\n",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_patch_of_another_kind_changes_nothing(here: Path, what: str) -> None:
    """It leads nowhere, neither outside nor into git's own files."""
    (here / "way").symlink_to(here.parent)
    state = git(here, "status", "--porcelain", "--ignored")
    with pytest.raises(PatchError):
        taken(here, HOSTILE[what], *(["l"] if what == "by a new link" else []))
    assert git(here, "status", "--porcelain", "--ignored") == state
    assert not (here.parent / "out").exists()
    assert not (here / ".git/hooks/pre-commit").exists()


def test_what_does_not_apply_changes_nothing_or_is_merged(here: Path, there: Path) -> None:
    """All or nothing; a merge leaves a conflict to look at."""
    (there / "a.txt").write_text("one\n2\nthree\n")
    (there / "b.txt").write_text("new\n")
    (here / "a.txt").write_text("one\nII\nthree\n")
    git(here, "commit", "-qam", "mine")
    with pytest.raises(PatchError, match="does not apply"):
        taken(here, made(there))
    assert not (here / "b.txt").exists()
    with pytest.raises(PatchError, match=r"with conflicts: a\.txt"):
        taken(here, made(there), merge=True)
    assert (here / "b.txt").exists()
    assert "<<<<<<<" in (here / "a.txt").read_text()
    with pytest.raises(PatchError, match="does not apply"):  # the conflicts are not of this one
        taken(here, HOSTILE["out of the folder"], merge=True)


def test_a_folder_without_a_repository(tmp_path: Path) -> None:
    """There would be nothing to look at the changes with, or to undo them."""
    with pytest.raises(NotFoundError, match="is in no git repository"):
        Patch(tmp_path / "patch", tmp_path)
