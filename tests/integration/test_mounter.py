"""Folders that come into a jail and go, from inside: what goes is gone, whatever the one in the jail has open there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.backends.base import MOUNTS, Share
from shed.backends.jail.plan import Folder, inside
from shed.backends.qemu import mounting
from shed.backends.qemu.mounting import QemuMounting
from shed.errors import BackendError
from support.guests.prisoner import Prisoner

USER = (1000, 1000, os.geteuid(), os.getegid())


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prisoner]:
    """One that has a folder and can get more; where a VM's monitor would be asked, it is."""
    (tmp_path / "first").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work/file").write_text("text")
    with Prisoner(tmp_path / "vm", Folder(tmp_path / "first"), user=USER, more=True) as prisoner:

        async def close_all(_: object, mount: int) -> None:
            assert prisoner.tries(f"os.open('/revoke/{mount}', os.O_CREAT | os.O_WRONLY)") == "EPERM"

        monkeypatch.setattr(mounting._Vmm, "close_all", close_all)
        monkeypatch.setattr(mounting, "_TRIES", 3)
        yield prisoner


def give(prisoner: Prisoner, folder: Path, mode: str = "rw") -> str:
    """Give it a folder; return where it has that."""
    asyncio.run(QemuMounting().add(prisoner.folder, Share(MOUNTS, folder, 1000, 1000, mode)))
    return inside(folder, mode)


def take(prisoner: Prisoner, folder: Path, mode: str = "rw") -> None:
    asyncio.run(QemuMounting().remove(prisoner.folder, Share(MOUNTS, folder, 1000, 1000, mode)))


def test_a_folder_comes_and_goes(held: Prisoner, tmp_path: Path) -> None:
    """Files and folders that were open are of no use afterwards, by no call; the other folder is as it was."""
    for _ in range(2):
        at = give(held, tmp_path / "work")
        assert held.tries(f"os.listdir({at!r})") == "['file']"
        opened = f"a=os.open({at!r} + '/file', os.O_RDWR), b=os.open({at!r}, 0), c=os.open({at!r}, os.O_PATH)"
        assert held.tries(f"globals().update({opened}, d=os.open({inside(tmp_path / 'first')!r}, 0))") == "None"
        assert held.tries("os.pread(a, 9, 0)") == "b'text'"
        take(held, tmp_path / "work")
        for attack in (
            "os.pread(a, 9, 0)",
            "os.pwrite(a, b'x', 0)",
            "os.ftruncate(a, 9)",
            "os.listdir(b)",
            "os.open('file', 0, dir_fd=b)",
            "os.open('file', 0, dir_fd=c)",
            "os.open('..', 0, dir_fd=c)",
            "os.mkdir('new', dir_fd=c)",
            "os.open('/proc/self/fd/%d/file' % b, 0)",
            f"os.listdir({at!r})",
        ):
            assert held.tries(attack).startswith("E"), attack
        assert held.tries("os.listdir('/gone')") == "[]"
        assert held.tries(f"os.listdir({inside(tmp_path)!r})") == "['first']"
        assert held.tries("os.mkdir('made', dir_fd=d) or os.rmdir('made', dir_fd=d)") == "None"
        assert (tmp_path / "work/file").read_text() == "text"
        assert os.listdir(tmp_path / "work") == ["file"]  # noqa: PTH208


def test_modes_of_folders_that_come(held: Prisoner, tmp_path: Path) -> None:
    """To be read, with git's settings held, and without."""
    at = give(held, tmp_path / "work", "ro")
    assert held.tries(f"os.open({at!r} + '/file', os.O_RDWR)") == "EROFS"
    assert held.tries(f"os.mkdir('new', dir_fd=os.open({at!r}, os.O_PATH))") == "EROFS"
    take(held, tmp_path / "work", "ro")
    for mode, hook in (("rw", "EPERM"), ("git-rw", "None")):
        at = give(held, tmp_path / "work", mode)
        assert held.tries(f"os.mkdir('.git', dir_fd=os.open({at!r}, os.O_PATH))") in {"None", "EEXIST"}
        git = f"os.open({at!r} + '/.git', os.O_PATH)"
        assert held.tries(f"os.close(os.open('config', os.O_CREAT | os.O_WRONLY, dir_fd={git}))") == hook
        assert held.tries(f"os.open('suid', os.O_CREAT | os.O_WRONLY, 0o4755, dir_fd={git})") == "EPERM"
        take(held, tmp_path / "work", mode)


def test_nothing_is_made_beside_them(held: Prisoner, tmp_path: Path) -> None:
    """Where folders are mounted, there is nothing to be written."""
    give(held, tmp_path / "work")
    for place in ("/shares", "/shares/held", "/shares/free", "/gone", inside(tmp_path)):
        assert held.tries(f"os.mkdir('new', dir_fd=os.open({place!r}, os.O_PATH))") == "EROFS"
        assert held.tries(f"os.close(os.open({place!r} + '/new', os.O_CREAT | os.O_WRONLY))") in {"EROFS", "EPERM"}


def test_one_who_does_not_let_go(held: Prisoner, tmp_path: Path) -> None:
    """What a VMM that was taken over has mapped into its memory, nobody can close: it is told, so that the VM ends."""
    at = give(held, tmp_path / "work")
    assert held.tries(f"globals().update(m=mmap.mmap(os.open({at!r} + '/file', os.O_RDWR), 4))") == "None"
    for _ in range(2):
        with pytest.raises(BackendError) as caught:
            take(held, tmp_path / "work")
        assert caught.value.code == "STILL_SHARED"
        assert held.tries(f"os.listdir({at!r})") == "ENOENT"
    assert held.tries("m.close()") == "None"
    take(held, tmp_path / "work")
    assert held.tries("os.listdir('/gone')") == "[]"


def test_what_cannot_be_given(held: Prisoner, tmp_path: Path) -> None:
    """A folder that is gone, and one whose path has become a link, by one clear error; nothing is mounted."""
    (tmp_path / "link").symlink_to(tmp_path / "work")
    for name in ("none", "link", "link/inner"):
        with pytest.raises(Exception, match=f"{name}"):
            give(held, tmp_path / name)
    assert held.tries("os.listdir('/shares/held')") == repr([tmp_path.parts[1]])


@pytest.mark.root
def test_mounts_in_a_folder(held: Prisoner, tmp_path: Path) -> None:
    """They come with it, and go with it."""
    inner = tmp_path / "work/inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    try:
        (inner / "deep").write_text("deep")
        at = give(held, tmp_path / "work")
        assert held.tries(f"globals().update(a=os.open({at!r} + '/inner/deep', 0)) or os.pread(a, 9, 0)") == "b'deep'"
        take(held, tmp_path / "work")
        assert held.tries("os.pread(a, 9, 0)") == "EBADF"
    finally:
        subprocess.run(["umount", str(inner)], check=True)


@pytest.mark.root
def test_it_is_the_same_for_an_ordinary_user() -> None:
    """All of this file again, as somebody who can make mounts in a user namespace alone."""
    user = 54323
    everything = "-all,+dac_read_search"  # the interpreter may be in root's home
    with tempfile.TemporaryDirectory() as folder:  # others may not look into those of pytest
        os.chown(folder, user, user)
        command = [
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *(f"--inh-caps={everything}", f"--ambient-caps={everything}", f"--bounding-set={everything}"),
            *(sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder}/base"),
            *("-m", "not root", __file__),
        ]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
