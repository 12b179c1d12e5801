"""A shared folder by the command line: how it is shared, and what the shed has left in it.  VMs are the fake
backend's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.images.runtimes import small_runtime
from support.servers.fake_server import fake_server

Shed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    (tmp_path / "server").mkdir()
    with fake_server(tmp_path / "server") as env:

        def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "shed.cli.main", *words]
            done = subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == code, done
            assert "Traceback" not in done.stderr
            return done

        (tmp_path / "work").mkdir()
        (tmp_path / "server/blobs/root").write_bytes(small_runtime("base"))  # is looked into for the guest's user
        yield run


@pytest.mark.parametrize(("suffix", "mode"), [("", "rw"), (":rw", "rw"), (":ro", "ro"), (":git-rw", "git-rw")])
def test_how_a_folder_is_shared_is_shown_and_kept(shed: Shed, tmp_path: Path, suffix: str, mode: str) -> None:
    """In the answer, in the list, and in the record, from which the next start takes it."""
    work = tmp_path / "work"
    shed("create", "dev", "--local-dir", f"{work}{suffix}")
    (wire,) = json.loads(shed("list", "--json").stdout)
    assert (wire["local_dir"], wire["local_dir_mode"]) == (str(work), mode)
    shown = f"{work}" if mode == "rw" else f"{work}:{mode}"
    assert shown in shed("list", "-v").stdout.split()
    shed("stop", "dev")
    shed("start", "dev")
    (record,) = tmp_path.glob("server/**/instances/dev/metadata.json")
    assert json.loads(record.read_text())["local_dir_mode"] == mode


def test_a_folder_may_have_a_mode_in_its_name(shed: Shed, tmp_path: Path) -> None:
    """What stands last is the mode; other colons belong to the folder."""
    folder = tmp_path / "work:ro"
    folder.mkdir()
    shed("create", "dev", "--local-dir", f"{folder}:rw")
    (wire,) = json.loads(shed("list", "--json").stdout)
    assert (wire["local_dir"], wire["local_dir_mode"]) == (str(folder), "rw")
    assert "does not exist" in shed("create", "more", "--local-dir", f"{tmp_path}/work:wild", code=2).stderr


def test_what_was_left_is_told(shed: Shed, tmp_path: Path) -> None:
    """When the shed stops, what has changed; when somebody asks, all, with an exit code for scripts."""
    work = tmp_path / "work"
    (work / ".git").mkdir()
    (work / ".git/HEAD").write_text("ref: refs/heads/main\n")
    shed("create", "dev", "--local-dir", str(work))
    assert "0 that could run" in shed("workspace", "check", "dev").stderr
    (work / ".envrc").write_text("x\n")
    (work / ".git/config").write_text("[core]\n\tfsmonitor = x\n")
    stopped = shed("stop", "dev").stderr
    assert f"{work}/.envrc has changed while the shed ran: direnv runs it" in stopped
    assert "fsmonitor" not in stopped  # a shed cannot have written that
    checked = shed("workspace", "check", "dev", code=1)
    assert checked.stdout.splitlines() == [
        "changed    .envrc: direnv runs it, once you have allowed it",
        "changed    .git/config: git runs programs by it: core.fsmonitor",
    ]
    found = json.loads(shed("workspace", "check", "dev", "--json", code=1).stdout)
    assert [one["path"] for one in found["findings"]] == [".envrc", ".git/config"]
    assert found["after"] is None


def test_a_shed_without_a_folder_has_nothing_to_check(shed: Shed) -> None:
    """One clear error."""
    shed("create", "dev")
    assert "has no folder" in shed("workspace", "check", "dev", code=2).stderr
