"""Standing still, and becoming another shed, as far as it goes without a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import support.guests
from shed.guest import forked, state
from shed.guest.configure import identity
from shed.guest.freezer import Freezer
from shed.guest.loop import Loop


def hook(folder: Path, name: str, script: str, mode: int = 0o755) -> None:
    """Put a hook there."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(mode)


def run_hooks(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: float = 30.0) -> list[str]:
    """Run the hooks of a folder, and return what went wrong."""
    monkeypatch.setattr(forked, "_HOOKS", str(folder))
    monkeypatch.setattr(forked, "_HOOK_SECONDS", seconds)
    loop, found = Loop(), list[str]()
    loop.reap_children(adopted=False)

    async def work() -> None:
        found.extend(await forked._run_hooks(loop))
        loop.stop()

    loop.spawn(work(), name="hooks")
    loop.run()
    loop.close()
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="hooks belong to root")
def test_hooks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails or cannot be started is told, and those behind it run."""
    tmp_path.chmod(0o755)
    for name, script in (("20-b", "echo b >>out"), ("10-a", "echo a >>out"), ("15-bad", "exit 4")):
        hook(tmp_path, name, f"cd {tmp_path}; {script}")
    hook(tmp_path, "12-text", "echo never >>out", 0o644)
    hook(tmp_path, "13-open", f"echo never >>{tmp_path}/out", 0o777)
    (tmp_path / "14-no-program").write_bytes(b"\x7fELF")
    (tmp_path / "14-no-program").chmod(0o755)
    (tmp_path / "16-folder").mkdir()
    found = run_hooks(monkeypatch, tmp_path)
    assert found == ["14-no-program did not run: Exec format error", "15-bad failed with status 4"]
    assert (tmp_path / "out").read_text() == "a\nb\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="hooks belong to root")
def test_hooks_that_take_too_long_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they started; those behind them do not run."""
    tmp_path.chmod(0o755)
    hook(tmp_path, "10-slow", "sleep 1000")
    hook(tmp_path, "20-late", f"touch {tmp_path}/never")
    assert run_hooks(monkeypatch, tmp_path, 0.2) == [
        "10-slow took too long and was ended",
        "20-late did not run: those before it took too long",
    ]
    assert not (tmp_path / "never").exists()


def test_there_need_be_no_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a folder that only root can have written."""
    assert run_hooks(monkeypatch, tmp_path / "none") == []
    hook(tmp_path, "10-a", f"touch {tmp_path}/never")
    tmp_path.chmod(0o777)
    assert run_hooks(monkeypatch, tmp_path) == []
    assert not (tmp_path / "never").exists()


def test_each_generation_is_another(tmp_path: Path) -> None:
    """The file is replaced: who has it open sees the old one."""
    path = tmp_path / "run/generation"
    seen = set()
    for _ in range(3):
        identity.renew_generation(str(path))
        seen.add((path.read_text(), path.stat().st_ino))
    assert len({text for text, _ in seen}) == 3
    assert all(len(text) == 33 and int(text, 16) for text, _ in seen)


def test_ssh_servers_that_listen_are_found(tmp_path: Path) -> None:
    """Not the processes of their connections, and no other program."""
    for pid, program, parent in ((10, "sshd", 1), (11, "sshd", 10), (12, "sh", 11), (20, "sshd", 1)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "exe").symlink_to(f"/usr/sbin/{program}")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({program} (x)) S {parent} 1 1")
    (tmp_path / "30").mkdir()
    assert sorted(identity.ssh_servers(str(tmp_path))) == [10, 20]


def test_without_control_groups_nothing_stands_still(tmp_path: Path) -> None:
    """That is said, and the state is as it was."""
    loop, problems = Loop(), list[str]()

    async def work() -> None:
        try:
            await Freezer(-1, roots=(str(tmp_path),)).freeze(loop)
        except OSError as error:
            problems.append(str(error))
        loop.stop()

    loop.spawn(work(), name="freeze")
    loop.run()
    loop.close()
    assert problems == ["there are no control groups of version 2 at /sys/fs/cgroup"]
    shed = state.State()
    shed.phase = state.READY
    shed.go_on()
    assert shed.phase == state.READY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a network of its own here")
def test_connections_that_lead_out_are_cut() -> None:
    """Those over loopback, and those who listen, go on."""
    script, source = Path(support.guests.__path__[0], "cut_process.py"), Path(forked.__file__).parents[2]
    done = subprocess.run(["unshare", "-n", sys.executable, script, source], capture_output=True, check=True)
    assert json.loads(done.stdout) == {"10.9.9.1": "cut", "127.0.0.1": "goes on", "fd00::9": "cut", "::1": "goes on"}
