"""A benchmark that is told to end takes with it what it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHED = """#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
"list --quiet") echo one two ;;
"snapshot ls --json") echo '[{"name": "kept"}]' ;;
esac
"""
"""Stands in for `shed`: notes what it is asked for, and lists two sheds and a snapshot."""
RUN = """
import sys, time, types
from pathlib import Path
from benchmarks import __main__ as all_of_them, material, world

world.SHED, world.CACHE = Path(sys.argv[1]), Path(sys.argv[2])

def measure():
    with world.world():
        print("begun", flush=True)
        time.sleep(600)

sys.modules["benchmarks.boot"] = types.SimpleNamespace(main=measure)
sys.argv[1:] = ["boot"]
all_of_them.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_was_started_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """The sheds and snapshots that are there, and the server with its spares."""
    shed, log = tmp_path / "shed", tmp_path / "log"
    shed.write_text(SHED)
    shed.chmod(0o755)
    (tmp_path / "base.oci.tar").touch()
    env = {**os.environ, "LOG": str(log), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, str(shed), str(tmp_path)]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        code = process.wait(60)
    assert code == (-number if number == signal.SIGINT else 128 + number)
    assert log.read_text().splitlines()[2:] == [
        "list --quiet",
        "delete --force one",
        "delete --force two",
        "snapshot ls --json",
        "snapshot rm kept",
        "server stop",
    ]
