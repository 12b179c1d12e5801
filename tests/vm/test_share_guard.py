"""What a hostile guest can leave in a shared folder: attacks that were real, with the host's git; and an honest day of
git, as ever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shed.backends.base import Connection, Share
from shed.oci.store import LayoutStore
from support.guests import guest_git
from support.guests.guest_git import in_guest, on_host
from support.vms.lab import Lab, run, vm_test

pytestmark = [pytest.mark.vm, pytest.mark.slow]

_ATTACKS = Path(guest_git.__file__).with_name("share_attacks.py")
_HONEST = """
set -x
cd /workspace/project
git status --porcelain
echo more >> src/code && git add src/code && git commit -qm second
git branch topic && git checkout -q topic
echo topic > src/topic && git add . && git commit -qm topic
git fetch -q origin
git checkout -q feature
test "$(git config branch.feature.remote)" = origin
git checkout -q main
echo stashed >> src/code && git stash -q && git stash pop -q && git checkout -q src/code
echo onto > src/onto && git add . && git commit -qm onto
git rebase -q main topic && git checkout -q main && git merge -q --ff-only topic
git branch -d topic && git branch -m feature renamed
git push -q -u origin renamed
git config user.nickname x 2>/dev/null && exit 9
git config user.name someone && git config branch.main.description words
git remote add fork https://example.org/fork.git
git tag v1 && git gc -q && git fsck
git init -q -b main /workspace/new && cd /workspace/new && echo a > a && git add a && git commit -qm a
git clone -q /workspace/origin.git /workspace/clone && cd /workspace/clone && git log --oneline | cat
mkdir -p /workspace/new/hooks /workspace/new/refs && echo x > /workspace/new/config
mv /workspace/new /workspace/renamed
rm -rf /workspace/clone
cd /workspace/project && git worktree add -q /root/tree -b tree && cd /root/tree
echo tree > tree && git add tree && git commit -qm tree && git status
cd /workspace/project && git worktree remove /root/tree
"""


@pytest.fixture
def lab(way: str, small_store: LayoutStore, tmp_path: Path) -> Lab:
    return Lab(small_store, tmp_path, way)


def _folder(lab: Lab) -> tuple[Path, Path]:
    """Return a folder to share, with a repository in it, and the home of its user."""
    home, folder = lab.root / "home", lab.root / "folder"
    home.mkdir()
    folder.mkdir()
    guest_git.put_tools(folder)
    guest_git.make_project(folder, home=home)
    return folder, home


async def _python(link: Connection, text: str) -> tuple[int, bytes]:
    lib = "/run/shed-runtime/lib"
    return await run(
        link, f"{lib}/ld-linux-x86-64.so.2", "--library-path", lib, "/run/shed-runtime/bin/python3", "-c", text
    )


def test_nothing_of_a_guests_runs_by_the_hosts_git(lab: Lab) -> None:
    """The guest's root tries all ways to settings and hooks; then the host's git works in each folder, and runs
    nothing.

    On the commit before the guard, each of the first ones leaves a file by the host's `git status`.
    """
    folder, home = _folder(lab)
    project, mark = folder / "project", lab.root / "ran"
    program = folder / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    settings = (project / ".git/config").read_bytes()

    async def work(lab: Lab) -> None:
        link = await lab.ready(lab.machine(shares=(Share("workspace", folder, 1000, 1000),)))
        code, output = await _python(link, f"PROGRAM = {str(program)!r}\n{_ATTACKS.read_text()}")
        assert code == 0, output.decode()
        for place in (
            folder,
            *(Path(where) for where, folders, _ in os.walk(folder) if not {"objects"} & set(Path(where).parts)),
        ):
            on_host(place, "status", home=home)
            assert not mark.exists(), place
        on_host(project, "commit", "--allow-empty", "-m", "hooks", home=home)
        assert not mark.exists()
        assert (project / ".git/config").read_bytes() == settings
        modes = [path.lstat().st_mode for path in folder.rglob("*")]
        assert not [oct(mode) for mode in modes if mode & 0o6000 or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)]

    vm_test(work, lab)


def test_an_honest_day_of_git(lab: Lab) -> None:
    """Status to gc in the host's repository, new ones beside it; the host's own settings are still there, and both see
    one repository.
    """
    folder, home = _folder(lab)

    async def work(lab: Lab) -> None:
        link = await lab.ready(lab.machine(shares=(Share("workspace", folder, 1000, 1000),)))
        await guest_git.install(link)
        code, output = await in_guest(link, _HONEST)
        assert code == 0, output.decode()
        project = folder / "project"
        assert on_host(project, "config", "core.sshCommand", home=home) == "the-users-own-ssh\n"
        assert on_host(project, "config", "branch.renamed.remote", home=home) == "origin\n"
        assert on_host(project, "status", "--porcelain", home=home) == ""
        assert on_host(project, "log", "--format=%s", home=home).split() == ["topic", "onto", "second", "first"]

    vm_test(work, lab)


def test_a_folder_to_be_read(lab: Lab) -> None:
    """Host-side: the guest's root mounts it again to be written, and cannot."""
    folder, _ = _folder(lab)
    before = sorted(folder.rglob("*"))

    async def work(lab: Lab) -> None:
        link = await lab.ready(lab.machine(shares=(Share("workspace", folder, 1000, 1000, "ro"),)))
        script = (
            "cat /workspace/project/src/code; mount -o remount,rw /workspace; echo x > /workspace/x; rm "
            "/workspace/project/src/code"
        )
        code, output = await run(link, "/bin/busybox", "sh", "-c", f"exec 2>&1; {script}")
        assert code
        assert output.startswith(b"code\n")
        assert output.count(b"Read-only file system") == 2, output
        assert sorted(folder.rglob("*")) == before

    vm_test(work, lab)
