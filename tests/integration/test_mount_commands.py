"""Several folders of the host by the command line: given, shown, added, taken away.  VMs are the fake backend's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.client.sync.client import Client
from support.images.runtimes import small_runtime
from support.servers.fake_server import fake_server

Shed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shed]:
    (tmp_path / "server").mkdir()
    with fake_server(tmp_path / "server") as env:

        def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "shed.cli.main", *words]
            done = subprocess.run(
                command,
                env=env,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == code, done
            assert "Traceback" not in done.stderr
            return done

        for name in ("work", "data", "notes"):
            (tmp_path / name).mkdir()
        (tmp_path / "server/blobs/root").write_bytes(small_runtime("base"))  # is looked into for the guest's user
        for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "HOME"):
            monkeypatch.setenv(name, env[name])
        yield run


def test_folders_of_a_shed(shed: Shed, tmp_path: Path) -> None:
    """Given when it is made, listed, changed while it runs and when not; paths of this machine are made absolute."""
    shed("create", "dev", "--local-dir", "work", "--mount", "data:/data:ro", "--mount", f"{tmp_path}/notes:/n")
    rows = [line.split() for line in shed("mount", "ls", "dev").stdout.splitlines()[1:]]
    assert rows == [
        ["/workspace", f"{tmp_path}/work", "rw"],
        ["/data", f"{tmp_path}/data", "ro"],
        ["/n", f"{tmp_path}/notes", "rw"],
    ]
    assert f"{tmp_path}/work +2" in shed("list", "-v").stdout
    assert [one["target"] for one in json.loads(shed("inspect", "dev", "--json").stdout)["mounts"]] == ["/data", "/n"]
    shed("mount", "rm", "dev", "/n")
    shed("stop", "dev")
    shed("mount", "rm", "dev", "/data")
    assert "no folder" in shed("mount", "rm", "dev", "/n", code=1).stderr
    found = json.loads(shed("mount", "add", "dev", "./notes:/more:git-rw", "--json").stdout)
    assert found["mounts"][1:] == [{"source": f"{tmp_path}/notes", "target": "/more", "mode": "git-rw"}]
    assert "is not SRC:DST" in shed("mount", "add", "dev", "notes", code=2).stderr
    assert "mkdir -p" in shed("mount", "add", "dev", "none:/x", code=2).stderr
    assert "the same or in each other" in shed("mount", "add", "dev", "work:/x", code=2).stderr


def test_volumes_of_run(shed: Shed, tmp_path: Path) -> None:
    """Each one by docker's words: at /workspace when nothing is said, or where it is said."""
    shed("run", "--name", "dev", "-v", "work", "-v", "data:/data:ro", "-v", "notes:/n", "--", "true")
    rows = [line.split()[::2] for line in shed("mount", "ls", "dev").stdout.splitlines()[1:]]
    assert rows == [["/workspace", "rw"], ["/data", "ro"], ["/n", "rw"]]


def test_what_is_left_in_a_folder(shed: Shed, tmp_path: Path) -> None:
    """`workspace check` looks at the one that is named."""
    shed("create", "dev", "--mount", "data:/data")
    (tmp_path / "data/.envrc").touch()
    assert "data/.envrc has changed" in shed("stop", "dev").stderr
    assert ".envrc" in shed("workspace", "check", "dev", "--mount", "/data", code=1).stdout
    assert "has no folder" in shed("workspace", "check", "dev", code=2).stderr


def test_from_a_program(shed: Shed, tmp_path: Path) -> None:
    """The SDK gives folders, and takes them away."""
    shed("list")
    made = Client().create("dev", mounts=[f"{tmp_path}/data:/data"])
    made.stop()
    assert [one.target for one in made.change_mounts(add=[f"{tmp_path}/notes:/n:ro"], remove=["/data"])] == ["/n"]
    (mount,) = made.mounts()
    assert (mount.source, mount.target, mount.mode) == (f"{tmp_path}/notes", "/n", "ro")
