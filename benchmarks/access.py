"""Many at once, and many in all: 50 concurrent `shed exec`, and `shed list` with 200 sheds."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.harness import Sample, Subject, command, compare, show
from benchmarks.world import SHED, shed, world

_CLIENTS = 50
_SHEDS = 200


def main() -> None:
    """Compare 50 commands at once with one after the other, and a list of 200 sheds with one of a single shed."""
    with world() as data:
        shed("create", "bench-access", "--image", "base")
        try:
            show(f"{_CLIENTS} execs", "at once", "in turn", compare(_at_once, _in_turn, runs=3))
            one = _times(command([SHED, "list"]))
            shed("stop", "bench-access")
            added = _add(data)
            try:
                many = _times(command([SHED, "list"]))
            finally:
                for name in added:
                    shutil.rmtree(data / "instances" / name)
            print(f"list: {_SHEDS} sheds {many:.3f} s, 1 shed {one:.3f} s, ratio {many / one:.2f}", flush=True)
        finally:
            shed("delete", "bench-access", "--force")


def _times(subject: Subject) -> float:
    return statistics.median(subject().seconds for _ in range(11))


def _at_once() -> Sample:
    start = time.perf_counter()
    running = [
        subprocess.Popen([SHED, "exec", "bench-access", "--", "echo", str(number)], stdout=subprocess.PIPE)
        for number in range(_CLIENTS)
    ]
    for number, process in enumerate(running):
        assert process.communicate()[0] == b"%d\n" % number
    return Sample(time.perf_counter() - start)


def _in_turn() -> Sample:
    start = time.perf_counter()
    for number in range(_CLIENTS):
        assert shed("exec", "bench-access", "--", "echo", str(number)) == f"{number}\n"
    return Sample(time.perf_counter() - start)


def _add(data: Path) -> list[str]:
    """Add records of stopped sheds, so that there are 200."""
    record = json.loads((data / "instances/bench-access/metadata.json").read_text())
    names = [f"bench-{number:03}" for number in range(_SHEDS - 1)]
    for name in names:
        folder = data / "instances" / name
        folder.mkdir(mode=0o700)
        (folder / "metadata.json").write_text(json.dumps({**record, "name": name}))
    return names
