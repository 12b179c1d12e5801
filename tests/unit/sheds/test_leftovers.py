"""What in a shared folder may run on the host: each kind is found, a large folder takes several looks, a hostile one is
no trap.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shed.sheds.leftovers import changed, look, view
from shed.sheds.metadata import Record

RECORD = Record("demo", "2020-01-01T00:00:00Z", "base", "sha256:0", "qemu", 1, 512, 1 << 30)


def repository(folder: Path, settings: str = "[core]\n\tbare = false\n") -> Path:
    for name in ("objects/ab", "refs", "hooks"):
        (folder / name).mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "config").write_text(settings)
    return folder


def script(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def found(root: Path) -> dict[str, str]:
    return {finding.path: finding.why for finding in look(root).findings}


def test_each_kind_is_found(tmp_path: Path) -> None:
    """Settings, hooks, hooks among the sources, a rebase with commands, what editors and shells run, set-id bits; and
    nothing else.
    """
    git = repository(
        tmp_path / "a/.git",
        "[core]\n\tfsmonitor = x\n\thooksPath = .husky\n[alias]\n\tst = status\n[user]\n\tname = me\n",
    )
    script(git / "hooks/pre-commit")
    script(git / "hooks/pre-push.sample")
    script(git / "objects/ab/.envrc")
    script(tmp_path / "a/.husky/pre-commit")
    script(tmp_path / "a/src/hooks/useThing")
    (git / "rebase-merge").mkdir()
    (git / "rebase-merge/git-rebase-todo").write_text("pick abc\nexec make\n")
    repository(tmp_path / "bare", "[include]\n\tpath = ../x\n")
    (tmp_path / "a/.envrc").write_text("x\n")
    (tmp_path / "a/.vscode").mkdir()
    (tmp_path / "a/.vscode/tasks.json").write_text("{}\n")
    script(tmp_path / "set")
    (tmp_path / "set").chmod(0o4755)
    script(tmp_path / "Makefile")
    everything = found(tmp_path)
    assert sorted(everything) == [
        "a/.envrc", "a/.git/config", "a/.git/hooks/pre-commit", "a/.git/rebase-merge/git-rebase-todo",
        "a/.husky/pre-commit", "a/.vscode/tasks.json", "bare/HEAD", "bare/config", "set",
    ]  # fmt: skip
    assert everything["a/.git/config"] == "git runs programs by it: core.fsmonitor, core.hookspath, alias.st"
    assert everything["bare/config"] == "git runs programs by it: include.path"


@pytest.mark.parametrize("entries", [1, 2, 5])
def test_a_large_folder_takes_several_looks(tmp_path: Path, entries: int) -> None:
    """Each goes on behind the last, and together they find the same, once."""
    for name in ("b", "a", "a-b", "a/c", "a/c/d", "z/y"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / ".envrc").touch()
    (tmp_path / ".envrc").touch()
    paths: list[str] = []
    after: str | None = None
    looks = 0
    while True:
        part = look(tmp_path, after=after, entries=entries)
        paths += [finding.path for finding in part.findings]
        looks += 1
        after = part.after
        if after is None:
            break
    assert sorted(paths) == sorted(found(tmp_path))
    assert len(paths) == 7
    assert looks > 1


def test_a_hostile_folder_is_no_trap(tmp_path: Path) -> None:
    """Links are not followed, a fifo is not opened, names cannot speak to the terminal, and a tree may be as deep as it
    likes.
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".envrc").touch()
    root = tmp_path / "root"
    git = repository(root / ".git")
    (git / "config").unlink()
    os.mkfifo(git / "config")
    (root / "link").symlink_to(outside)
    (root / "\x1b[31mred").mkdir()
    (root / "\x1b[31mred/.envrc").touch()
    deep = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    try:
        assert found(root) == {"?[31mred/.envrc": "direnv runs it, once you have allowed it"}
    finally:
        os.system(f"rm -rf '{root}/d'")


def test_a_repository_among_the_sources_is_told(tmp_path: Path) -> None:
    """A branch of the guest's had it, the host checked it out: git runs its settings for whoever works in it, so the
    stop says so, too.
    """
    repository(tmp_path / "project/.git")
    repository(tmp_path / "project/doc/store")
    (tmp_path / "project/refs").mkdir()
    (tmp_path / "project/HEAD").touch()
    record = Record(**{**{name: getattr(RECORD, name) for name in RECORD.__slots__}, "local_dir": str(tmp_path)})
    now = (tmp_path / "project/HEAD").stat().st_ctime
    (told,) = changed(record, now - 100)
    assert told.startswith(
        f"{tmp_path}/project/doc/store/HEAD has changed while the shed ran: git takes this folder for a repository"
    )


def test_ways_out_of_a_repository_are_found(tmp_path: Path) -> None:
    """Links below `.git`, to folders and to files, and a `.git` file that leads to sources; a submodule's own leads to
    its repository.
    """
    git = repository(tmp_path / "a/.git")
    (git / "logs").mkdir()
    (git / "logs/HEAD").symlink_to(tmp_path / "profile")
    (git / "modules").symlink_to(tmp_path)
    (tmp_path / "a/link").symlink_to(tmp_path)
    for name, text in (("sub", "gitdir: ../.git/modules/sub\n"), ("evil", "gitdir: ../doc/store\n")):
        (tmp_path / "a" / name).mkdir()
        (tmp_path / "a" / name / ".git").write_text(text)
    assert sorted(found(tmp_path)) == ["a/.git/logs/HEAD", "a/.git/modules", "a/evil/.git"]


def test_a_stop_tells_what_the_shed_can_have_changed(tmp_path: Path) -> None:
    """Not what was so before, nor what the shed could not write; a few at most, and how to see the others."""
    git = repository(tmp_path / ".git", "[core]\n\tfsmonitor = x\n")
    for number in range(7):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / ".envrc").touch()
    record = Record(**{**{name: getattr(RECORD, name) for name in RECORD.__slots__}, "local_dir": str(tmp_path)})
    now = (git / "config").stat().st_ctime
    told = changed(record, now - 100)
    assert [words.split()[0] for words in told] == [*(f"{tmp_path}/{number}/.envrc" for number in range(5)), "2"]
    assert told[-1].endswith("shed workspace check demo")
    assert changed(record, now + 100) == []
    (finding,) = [one for one in view(record, None)["findings"] if one["path"] == ".git/config"]
    assert finding["changed"]


def test_a_folder_that_became_a_link(tmp_path: Path) -> None:
    """What it leads to is not looked at."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/.envrc").touch()
    (tmp_path / "folder").symlink_to("secret")
    with pytest.raises(NotADirectoryError):
        look(tmp_path / "folder")
