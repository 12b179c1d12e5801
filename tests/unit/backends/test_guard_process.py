"""The guard of a real process: the kernel asks, the supervisor answers; when that has ended, nothing is allowed that it
would be asked.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shed.backends.guard import mode, settings
from shed.backends.jail.plan import inside
from shed.backends.qemu import command, launching, process
from shed.errors import BackendError
from support.guests.held import REFUSED, UUID, Held


def test_a_repository_is_made_and_held(tmp_path: Path) -> None:
    """Its settings are written by way of a lock, as far as they are harmless, into a file that was never the
    guest's.
    """
    with Held(tmp_path) as held:
        git = held.share / ".git"
        assert held.does("make('.', '.git')") == "works"
        assert held.does("write('.git', 'config', b'[core]')") == REFUSED
        assert held.does("write('.git', 'config.lock')") == REFUSED  # not without O_EXCL
        assert (
            held.does("globals().update(kept=write('.git', 'config.lock', b'[core]\\n\\tbare = false\\n', how=lock))")
            == "works"
        )
        inode = (git / "config.lock").stat().st_ino
        assert held.does("move('.git', 'config.lock', '.git', 'config')") == "works"
        assert held.does("os.write(kept, b'\\tfsmonitor = x\\n')") == "works"
        assert (git / "config").read_bytes() == settings.MADE + b"[core]\n\tbare = false\n"
        assert (git / "config").stat().st_ino != inode
        assert (git / "config").stat().st_mode & 0o7777 == 0o644
        assert (
            held.does("write('.git', 'config.lock', b'[core]\\n\\tbare = false\\n\\tfsmonitor = x\\n', how=lock)")
            == "works"
        )
        assert held.does("move('.git', 'config.lock', '.git', 'config')") == REFUSED
        assert {path.name for path in git.iterdir()} == {"config", "config.lock"}
        assert held.does("os.unlink('config.lock', dir_fd=at('.git'))") == "works"
        (git / "config.lock").symlink_to(tmp_path / "elsewhere")
        assert held.does("move('.git', 'config.lock', '.git', 'config')") == "Too many levels of symbolic links"
        assert {path.name for path in git.iterdir()} == {"config", "config.lock"}
        assert held.does("write('.', 'HEAD')") == REFUSED
        assert held.does("write('.', 'file')") == "works"


def test_a_lock_of_the_hosts_is_left_alone(tmp_path: Path) -> None:
    """The host's git renames by name what it has made: the guest cannot write it, remove it or put another one in its
    place.
    """
    with Held(tmp_path) as held:
        assert held.does("make('.', '.git')") == "works"
        mine = held.share / ".git/config.lock"
        mine.write_text("[core]\n")
        inode = mine.stat().st_ino
        assert held.does("write('.git', 'config.lock', how=lock)") == "File exists"
        assert held.does("write('.git', 'other')") == "works"
        for attack in (
            "write('.git', 'config.lock', how=os.O_WRONLY)",
            "os.unlink('config.lock', dir_fd=at('.git'))",
            "move('.git', 'config.lock', '.git', 'x')",
            "move('.git', 'config.lock', '.git', 'config')",
            "move('.git', 'other', '.git', 'config.lock')",
            "os.link('config.lock', 'x', src_dir_fd=at('.git'), dst_dir_fd=at('.git'))",
        ):
            assert held.does(attack) == REFUSED, attack
        assert (mine.stat().st_ino, mine.read_text()) == (inode, "[core]\n")
        assert held.does("os.unlink('other', dir_fd=at('.git'))") == "works"


def test_a_work_tree_leads_to_its_repository_alone(tmp_path: Path) -> None:
    """What the guest writes into the file goes nowhere; it holds what git writes."""
    with Held(tmp_path) as held:
        for folder, name in ((".", ".git"), (".git", "worktrees"), (".git/worktrees", "w")):
            assert held.does(f"make({folder!r}, {name!r})") == "works"
        where = held.share / ".git/worktrees/w"
        for _ in range(2):
            assert held.does("write('.git/worktrees/w', 'commondir', b'../../../evil')") == "works"
            assert {path.name: path.read_text() for path in where.iterdir()} == {"commondir": "../..\n"}
        assert held.does("write('.git/worktrees/w', 'commondir', b'x', how=os.O_WRONLY)") == REFUSED
        assert held.does("move('.git/worktrees', 'w', '.git', 'w')") == REFUSED


def test_a_name_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """One that is too long, and one that is a path."""
    with Held(tmp_path) as held:
        assert held.does("make('.', 'a')") == "works"
        assert held.does("write('.', 'a/b')") == REFUSED
        assert held.does("write('.', 'x' * 256)") == "File name too long"


@pytest.mark.parametrize("how", ["rw", "git-rw"])
def test_setgid_stays_where_the_host_gave_it(tmp_path: Path, how: str) -> None:
    """A folder inherits it and keeps it, also when its mode is changed; no other file or folder gets it."""
    with Held(tmp_path, how) as held:
        assert held.does("make('.', 'plain')") == "works"
        assert not (held.share / "plain").stat().st_mode & 0o6000
        assert held.does("chmod('plain', 0o2755)") == REFUSED
        held.share.chmod(0o2755)
        assert held.does("make('.', 'inherits')") == "works"
        assert held.does("chmod('inherits', 0o2770)") == "works"
        assert (held.share / "inherits").stat().st_mode & 0o7777 == 0o2770
        assert held.does("write('.', 'file')") == "works"
        assert held.does("chmod('file', 0o2755)") == "Not a directory"
        assert held.does("chmod('file', 0o4755)") == REFUSED


def test_each_folder_has_its_own_mode(tmp_path: Path) -> None:
    """Beside one whose settings are held there is one where they are not; nobody gets a set-id bit."""
    with Held(tmp_path, beside="git-rw") as held:
        there = f"os.open({inside(held.beside, 'git-rw')!r}, os.O_PATH)"
        assert held.does(f"globals().update(beside={there})") == "works"
        assert held.does("os.mkdir('.git', dir_fd=beside)") == "works"
        git = f"os.open({inside(held.beside / '.git', 'git-rw')!r}, os.O_PATH)"
        assert held.does(f"globals().update(git={git})") == "works"
        assert held.does("os.open('config', os.O_CREAT | os.O_WRONLY, dir_fd=git)") == "works"
        assert held.does("os.rename('config', 'config.worktree', src_dir_fd=git, dst_dir_fd=git)") == "works"
        assert held.does("os.symlink('config', 'link', dir_fd=git)") == "works"
        assert held.does("os.open('suid', os.O_CREAT | os.O_WRONLY, 0o4755, dir_fd=git)") == REFUSED
        assert held.does("make('.', '.git')") == "works"
        assert held.does("write('.git', 'config')") == REFUSED
        assert held.does("os.symlink('config', 'link', dir_fd=at('.git'))") == REFUSED


def test_a_folder_to_be_read_beside_one_to_be_written(tmp_path: Path) -> None:
    """The mount says no, whoever asks."""
    with Held(tmp_path, beside="ro") as held:
        assert held.does("write('.', 'file')") == "works"
        there = f"os.open({inside(held.beside)!r}, os.O_PATH)"
        assert held.does(f"os.mkdir('x', dir_fd={there})") == "Read-only file system"


def test_whoever_wants_the_guests_hooks_gets_them(tmp_path: Path) -> None:
    """With git-rw the names of git are names, and set-id bits are still refused."""
    with Held(tmp_path, "git-rw") as held:
        assert held.does("write('.', 'HEAD')") == "works"
        assert held.does("make('.', '.git')") == "works"
        assert held.does("write('.git', 'config')") == "works"
        assert held.does("write('.', 'made', mode=0o4755)") == REFUSED


def test_without_its_supervisor_nothing_is_made(tmp_path: Path) -> None:
    """It fails closed; what is there can be read and written on."""
    with Held(tmp_path) as held:
        assert held.does("globals().update(kept=write('.', 'file'))") == "works"
        (guard,) = held.guards()
        os.kill(guard, signal.SIGKILL)
        handle = os.pidfd_open(guard)
        assert select.select([handle], [], [], 60)[0]
        os.close(handle)
        assert held.does("write('.', 'another')") == "Function not implemented"
        assert held.does("os.write(kept, b'on')") == "works"
        assert held.does("os.close(os.open('file', os.O_RDONLY, dir_fd=shared))") == "works"


def test_a_folder_to_be_read_needs_no_supervisor(tmp_path: Path) -> None:
    """QEMU itself refuses to write; set-id bits are refused all the same."""
    with Held(tmp_path, "ro") as held:
        assert held.guards() == []
        assert held.does("write('.', 'made', mode=0o4755)") == REFUSED


def test_a_kernel_that_cannot_guard_shares_nothing(tmp_path: Path) -> None:
    """A program that the kernel does not take: the error says so, nothing runs, and nothing is left."""
    with pytest.raises(BackendError, match="cannot be shared safely") as caught:
        launching.launch(
            tmp_path,
            [sys.executable, "-c", "", UUID],
            command.Host(Path(sys.executable), "tcg", UUID),
            "demo",
            None,
            guard=mode.Guard(b"\xff" * 8, supervised=True),
        )
    assert (caught.value.code, process.load(tmp_path)) == ("SHARE_UNGUARDED", None)
    assert caught.value.hint


@pytest.mark.root
def test_it_is_the_same_for_an_ordinary_user() -> None:
    """These tests again, as somebody whose QEMU runs in a user namespace."""
    user = 54321
    with tempfile.TemporaryDirectory() as folder:  # others may not look into those of pytest
        os.chown(folder, user, user)
        _again_as(user, Path(folder))


def _again_as(user: int, folder: Path) -> None:
    tests = (
        "a_repository_is_made_and_held",
        "a_work_tree_leads_to_its_repository_alone",
        "setgid_stays_where_the_host_gave_it",
    )
    everything = "-all,+dac_read_search"  # the interpreter may be in root's home
    command = [
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
        *(f"--inh-caps={everything}", f"--ambient-caps={everything}", f"--bounding-set={everything}"),
        *(sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder / 'base'}"),
        *("-k", " or ".join(tests), __file__),
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_supervisor_is_light() -> None:
    """There is one beside each VM with a writable folder: it imports nothing of the backend, nor an event loop."""
    script = (
        "import sys; import shed.backends.guard.supervisor; print(*(set(sys.modules) & {'asyncio', "
        "'shed.backends.qemu', 'subprocess'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
