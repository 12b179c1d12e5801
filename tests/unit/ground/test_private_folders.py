"""Folders and locks of one's own: closed to the other users of the machine, whatever the umask, and mended where they
were open.
"""

import contextlib
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed import fsutil
from shed.config.paths import Paths
from shed.errors import ConflictError, StorageError
from shed.fsutil import locked, private_folder
from shed.images import references
from shed.oci.digest import Digest
from shed.oci.store import LayoutStore
from shed.progress import on_wait
from shed.sheds.folders import prepare

NOBODY = 65534
TRY = f"""
import fcntl, os, sys
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
refused = 0
for path in sys.argv[1:]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError:
        refused += 1
print(refused)
"""
"""Another user's try to hold locks; prints how many were refused."""
HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may look into, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="shed-open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def no_umask() -> Iterator[None]:
    """The most careless umask there is."""
    before = os.umask(0)
    yield
    os.umask(before)


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Have another process hold the lock `path`; yields its number."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.communicate(b"")


def use(paths: Paths) -> None:
    """Have a store with all kinds of files and locks in it, and the folders of sheds."""
    store = LayoutStore(paths.images)
    with store.lease():
        digest = store.ingest([b"blob"])
    store.verify(digest, again=True)
    references.record(store, "localhost:5000/a:1", Digest(digest))
    prepare(paths)


@pytest.mark.usefixtures("no_umask")
def test_what_is_made_is_for_this_user_alone_under_any_umask(tmp_path: Path) -> None:
    """Folders have mode 0700, files 0600, from the first one on; blobs, which never change, can be read only."""
    paths = Paths(tmp_path / "share/shed", tmp_path / "run")
    use(paths)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (paths.data, *paths.data.rglob("*"))}
    assert len(modes) > 15
    blobs = [path for path in modes if len(path.name) == 64 and path.parent.name == "sha256"]
    wrong = {
        path: oct(mode)
        for path, mode in modes.items()
        if mode != (0o700 if path.is_dir() else 0o444 if path in blobs else 0o600)
    }
    assert not wrong
    assert not paths.data.parent.stat().st_mode & 0o022


@pytest.mark.root
def test_another_user_cannot_hold_the_locks_of_a_server(open_place: Path) -> None:
    """Not those that are made, and not those that an earlier version has left open to everybody, once the server has
    started.
    """
    paths = Paths(open_place / "data", open_place / "run")
    use(paths)
    for path in (paths.data, *paths.data.rglob("*")):  # as version 0.5.2 left them
        path.chmod(0o755 if path.is_dir() else 0o644)
    prepare(paths)
    locks = [str(path) for path in paths.data.rglob("*.lock")]
    assert len(locks) >= 3
    done = subprocess.run([sys.executable, "-c", TRY, *locks], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(locks)


def test_a_lock_that_was_open_is_closed_when_it_is_used(tmp_path: Path) -> None:
    """So that a store which no server has seen since is mended as well."""
    path = tmp_path / ".lock"
    path.touch(mode=0o644)
    with locked(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.root
@pytest.mark.parametrize("link", [False, True])
def test_a_folder_that_is_another_users_is_refused(tmp_path: Path, *, link: bool) -> None:
    """Or a link in its place: its owner could change what is in it, or lead a server elsewhere."""
    real, path = tmp_path / "real", tmp_path / "data"
    real.mkdir(mode=0o700)
    if link:
        path.symlink_to(real)
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    else:
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
    with pytest.raises(StorageError) as caught:
        prepare(Paths(path, tmp_path / "run"))
    assert caught.value.code == "NOT_OURS"
    assert str(path) in caught.value.message
    assert not list(real.iterdir())


def test_a_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    """The data may be on another disk; the folder there is closed."""
    real = tmp_path / "disk"
    real.mkdir(mode=0o755)
    (tmp_path / "data").symlink_to(real)
    private_folder(tmp_path / "data")
    assert stat.S_IMODE(real.stat().st_mode) == 0o700


def test_who_waits_for_a_lock_hears_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, name and user; a wait that takes too long ends in an error that says it, too."""
    monkeypatch.setattr(fsutil, "_TOLD_AFTER", 0.0)
    told: list[str] = []
    token = on_wait.set(told.append)
    with held(tmp_path / ".lock") as pid:
        with pytest.raises(ConflictError) as caught, locked(tmp_path / ".lock", limit=0.05):
            pass
        assert f"process {pid} (python" in caught.value.message
    on_wait.reset(token)
    assert caught.value.code == "LOCKED"
    (line,) = told
    assert line.startswith(f"waiting: {tmp_path}/.lock is in use by process {pid} (python")
    assert line.endswith(f", user {os.geteuid()})")
