"""Three ways to come up, in turn: create, and start, up to the first successful command; one, four and sixteen at once.

``spare`` is a machine that waited, ``warm`` one that is restored, ``cold`` one that is booted.  Also what a restore and
a configure are made of, and what memory idle sheds take that no others share.  ``BENCH_WARM_SAMPLES`` is how many
samples there are of each (default: 32).
"""

from __future__ import annotations

import ast
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.world import SHED, shed, world

_SAMPLES = int(os.environ.get("BENCH_WARM_SAMPLES", "32"))
_AT_ONCE = (1, 4, 16)
_MEMORY = {"spare": "512M", "warm": "520M", "cold": "512M"}
"""Not the same, so that there are no spares for those that are to be restored."""
_WAYS = tuple(_MEMORY)
_COLD = {"spare": (), "warm": (), "cold": ("--cold",)}
_BETWEEN = 1.0
"""Seconds until what a command has left to do is done."""
_REHEARSAL = 3.0
"""Seconds in which one that has just been started is through its rehearsal."""
_IDLE = (1, 10)
_CALM = 10.0
"""Seconds after which a shed counts as idle."""


@dataclass(slots=True)
class Times:
    """Seconds of one way to come up."""

    created: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    hello: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    qemu = {"default_cpus": 2, "default_memory_mb": 512, "warm_spares": max(_AT_ONCE)}
    with world({"default_image": "base", "qemu": qemu}) as data:
        shapes = [f"--shape=2x{memory}" for memory in set(_MEMORY.values())]
        subprocess.run([SHED.with_name("shed-server"), "warm", *shapes], stdout=subprocess.DEVNULL, check=True)
        log = data / "logs/server.log"
        before = log.stat().st_size if log.exists() else 0
        for many in _AT_ONCE:
            times = {way: Times() for way in _WAYS}
            with ThreadPoolExecutor(many) as pool:
                for batch in range(max(1, _SAMPLES // many)):
                    for way in _WAYS:
                        names = [f"{way}-{many}-{batch}-{number}" for number in range(many)]
                        _await_spares(data)
                        list(pool.map(partial(_create, way=way, times=times[way]), names))
                        list(pool.map(partial(shed, "stop"), names))
                        _await_spares(data)
                        list(pool.map(partial(_start, way=way, times=times[way]), names))
                        list(pool.map(partial(shed, "delete", "--force"), names))
            _show(many, times)
        _show_steps(log, before)
        _show_memory(data)


def _await_spares(data: Path) -> None:
    """Wait until all spares wait, and nothing else goes on."""
    shed("list")  # starts the server
    made = -1
    while made < max(_AT_ONCE):
        time.sleep(_BETWEEN)
        made = len(list(data.glob("spares/*/qmp.sock")))
    time.sleep(_REHEARSAL)


def _create(name: str, way: str, times: Times) -> None:
    """Create a shed and run a command in it."""
    with _timed(times.created):
        made = json.loads(shed("create", name, "--image", "base", "--memory", _MEMORY[way], "--json", *_COLD[way]))[
            "shed"
        ]
        shed("exec", name, "--", "true")
    assert way == _way(made)
    times.hello.append(sum(made["timings"].get(step, 0.0) for step in ("claim", "restore", "vm", "agent")) / 1000)


def _start(name: str, way: str, times: Times) -> None:
    """Start a shed and run a command in it."""
    with _timed(times.started):
        started = json.loads(shed("start", name, "--json", *_COLD[way]))["shed"]
        shed("exec", name, "--", "true")
    assert way == _way(started)


def _way(about: dict[str, Any]) -> str:
    return "spare" if "claim" in about["timings"] else str(about["boot"])


class _timed:  # noqa: N801  reads as a statement
    def __init__(self, into: list[float]) -> None:
        self._into = into

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._into.append(time.perf_counter() - self._begin)


def _show(many: int, times: dict[str, Times]) -> None:
    for what in ("created", "started", "hello"):
        found = {way: getattr(times[way], what) for way in _WAYS}
        title = {"created": "create to first exec", "started": "start to first exec", "hello": "process to hello"}[what]
        for way in _WAYS:
            print(f"{title}, {many} at once, {way}: {_percentiles(found[way])}", flush=True)
        cold = statistics.median(found["cold"])
        ratios = ", ".join(f"{way} {statistics.median(found[way]) / cold:.3f}" for way in _WAYS[:-1])
        print(f"  ratios of medians to cold: {ratios}", flush=True)


def _percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    shown = (
        f"p{percent} {ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]:.3f} s" for percent in (50, 90, 99)
    )
    return f"{', '.join(shown)} of {len(ordered)}"


def _show_steps(log: Path, before: int) -> None:
    """Print the medians of the steps of configure, for sheds that ran alone, from the `log` after byte `before`."""
    for way in _WAYS:
        steps: dict[str, list[float]] = {}
        for found in _steps(log.read_bytes()[before:].decode(), f"{way}-1-"):
            for name, spent in found.items():
                steps.setdefault(name, []).append(spent)
        shown = ", ".join(f"{name} {statistics.median(spent):.0f}" for name, spent in steps.items())
        print(f"steps of configure, {way}, ms: {shown}", flush=True)


def _steps(log: str, prefix: str) -> Iterator[dict[str, float]]:
    for line in log.splitlines():
        found = re.search(rf"shed {prefix}\S+: guest ready, steps (\{{.*\}})", line)
        if found:
            yield ast.literal_eval(found[1])


def _show_memory(data: Path) -> None:
    """Print the memory that an idle shed takes: by proportional set sizes, and by the host's free memory."""
    for way in _WAYS[1:]:
        names = [f"idle-{way}-{number}" for number in range(max(_IDLE))]
        for number, name in enumerate(names, start=1):
            shed("create", name, "--image", "base", "--memory", _MEMORY[way], *_COLD[way])
            if number in _IDLE:
                time.sleep(_CALM)
                each = statistics.mean(_proportional(data / "instances" / other) for other in names[:number])
                print(f"memory of each of {number} idle sheds, {way}: {each:.1f} MB", flush=True)
        for name in names:
            shed("delete", name, "--force")
    _await_spares(data)
    each = statistics.mean(map(_proportional, (path.parent for path in data.glob("spares/*/vm.json"))))
    print(f"memory of each of {max(_AT_ONCE)} that wait: {each:.1f} MB", flush=True)


def _proportional(folder: Path) -> float:
    """Return the proportional set size of the VM of a folder, in MB."""
    pid = json.loads((folder / "vm.json").read_text())["pid"]
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0]) / 1024
