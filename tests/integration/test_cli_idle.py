"""`shed create --idle-suspend`, `shed update --idle-suspend` and `shed keep-awake`, as people use them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.servers.fake_server import fake_server

Shed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    """`shed`, with a server that runs fake VMs."""
    with fake_server(tmp_path) as env:

        def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "shed.cli.main", *words]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == code, done
            assert "Traceback" not in done.stderr
            return done

        yield run


def test_a_shed_that_may_sleep(shed: Shed, tmp_path: Path) -> None:
    """What it was given is shown and changed; what cannot be is refused, with the way out."""
    shed("create", "dev", "--idle-suspend", "30m")
    assert json.loads(shed("inspect", "dev", "--json").stdout)["idle_suspend"] == 1800
    shed("update", "dev", "--idle-suspend", "none")
    assert "idle suspend" not in shed("inspect", "dev").stdout
    refused = shed("create", "other", "--idle-suspend", "30m", "--local-dir", str(tmp_path), code=1)
    assert "cannot be suspended" in refused.stderr
    assert "--idle-suspend none" in refused.stderr
    shed("create", "other", "--idle-suspend", "1s", code=2)
    shed("suspend", "dev")
    assert "suspended (command)" in shed("list").stdout


def test_keep_awake(shed: Shed) -> None:
    """Until when and what for is shown; all is released at once."""
    shed("create", "dev")
    assert "dev is kept awake until 2" in shed("keep-awake", "dev", "--for", "2h", "--reason", "a review").stdout
    lease = json.loads(shed("keep-awake", "dev", "--json").stdout)["lease"]
    assert "running (kept awake)" in shed("list").stdout
    shown = shed("inspect", "dev").stdout
    assert "reason=a review" in shown
    assert lease["id"] in shown
    shed("keep-awake", "dev", "--for", "25h", code=2)
    shed("keep-awake", "dev", "--release", "--for", "1h", code=2)
    assert shed("keep-awake", "dev", "--release").stdout == "dev is kept awake no more\n"
    assert "kept awake" not in shed("list").stdout
    shed("stop", "dev")
    assert "shed start dev" in shed("keep-awake", "dev", code=1).stderr
