"""The backend without a VM: what is missing, what is refused, what is said when QEMU ends at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shed.backends.base import Liveness, Machine, Share
from shed.backends.qemu import QemuBackend, process
from shed.config.paths import Paths
from shed.errors import BackendError, ConflictError, UnavailableError, UsageError


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No KVM is tried here."""
    monkeypatch.setenv("SHED_ACCEL", "tcg")


def machine(folder: Path, *shares: Share) -> Machine:
    for name in ("k", "i"):
        (folder / name).touch()
    return Machine("demo", 1, 256, folder / "k", folder / "i", (), folder, shares)


def backend(folder: Path, body: str = "exec sleep 60") -> QemuBackend:
    """Return a backend whose QEMU is a shell script, with a shell in its libraries: its jail has no other."""
    program, shell = folder / "bin/qemu", folder / "lib/sh"
    for path in (program, shell):
        path.parent.mkdir()
    folder.chmod(0o755)  # root's QEMU is another user
    shutil.copy(Path("/bin/sh").resolve(), shell)
    program.write_text(f"#!{shell}\n{body}\n")
    program.chmod(0o755)
    return QemuBackend(Paths(folder / "data", folder / "run"), program=str(program))


async def test_a_missing_qemu_is_one_clear_error(tmp_path: Path) -> None:
    """With the command that installs it."""
    missing = QemuBackend(Paths(tmp_path, tmp_path), program="qemu-system-nothing")
    with pytest.raises(UnavailableError, match="qemu-system-nothing is not installed") as caught:
        await missing.start(machine(tmp_path))
    assert "apt-get install" in str(caught.value.hint)


async def test_a_folder_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """Before anything is made."""
    with pytest.raises(UsageError, match="there is no such folder"):
        await backend(tmp_path).start(machine(tmp_path, Share("workspace", tmp_path / "nothing", 1000, 1000)))
    assert not (tmp_path / process.RECORD).exists()


async def test_a_qemu_that_ends_at_once_is_an_error_with_its_words(tmp_path: Path) -> None:
    """What it printed and the console's last lines of this boot, not of the one before, which stays beside it; the
    record goes.
    """
    (tmp_path / "console.log").write_text("yesterday\n")
    failing = backend(tmp_path, "echo 'no such machine' >&2; echo 'guest went wrong' >&6; exit 1")
    with pytest.raises(BackendError) as caught:
        await failing.start(machine(tmp_path))
    assert caught.value.code == "VM_START_FAILED"
    assert "no such machine" in str(caught.value)
    assert "guest went wrong" in str(caught.value)
    assert "yesterday" not in str(caught.value)
    assert (tmp_path / "console.log").read_text() == "guest went wrong\n"
    assert (tmp_path / "console.before.log").read_text() == "yesterday\n"
    assert failing.liveness(tmp_path) is Liveness.NOT_OURS
    assert failing.pid(tmp_path) is None


async def test_nothing_to_connect_to(tmp_path: Path) -> None:
    """No record: there is no VM; and waiting for its end, or killing it, is done at once."""
    idle = backend(tmp_path)
    with pytest.raises(BackendError, match="no VM runs") as caught:
        await idle.connect(tmp_path, timeout=60)
    assert caught.value.code == "VM_EXITED"
    assert await idle.wait_exit(tmp_path, timeout=60)
    await idle.kill(tmp_path)
    await idle.kill(tmp_path)


async def test_a_damaged_record_blocks_what_could_do_harm(tmp_path: Path) -> None:
    """No second VM on the same disks, and no signal to anybody; the display has no pid."""
    (tmp_path / process.RECORD).write_text("{")
    careful = backend(tmp_path)
    assert careful.liveness(tmp_path) is Liveness.UNKNOWN
    assert careful.pid(tmp_path) is None
    with pytest.raises(ConflictError, match="may be running"):
        await careful.start(machine(tmp_path))
    with pytest.raises(BackendError, match="damaged") as caught:
        await careful.kill(tmp_path)
    assert caught.value.hint
    assert (tmp_path / process.RECORD).exists()
