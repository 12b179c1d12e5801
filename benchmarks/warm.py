"""Warm starts beside cold ones, in turn: create, and start, up to the first successful command; one, four and sixteen at once.

Also what a restore and a configure are made of, and what memory an idle shed takes that no other shares.  ``BENCH_WARM_SAMPLES`` is how
many samples there are of each (default: 32).
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

from benchmarks.world import SHED, shed, world

_SAMPLES = int(os.environ.get("BENCH_WARM_SAMPLES", "32"))
_AT_ONCE = (1, 4, 16)
_MEMORY = "512M"
_WAYS = ("warm", "cold")
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
    with world() as data:
        subprocess.run([SHED.with_name("shed-server"), "warm", "--shape", f"2x{_MEMORY}"], stdout=subprocess.DEVNULL, check=True)
        for many in _AT_ONCE:
            times = {way: Times() for way in _WAYS}
            for batch in range(max(1, _SAMPLES // many)):
                for way in _WAYS:
                    names = [f"{way}-{many}-{batch}-{number}" for number in range(many)]
                    with ThreadPoolExecutor(many) as pool:
                        list(pool.map(partial(_live, way=way, times=times[way]), names))
            _show(many, times)
        _show_steps(data)
        _show_memory(data)


def _live(name: str, way: str, times: Times) -> None:
    """Create a shed, stop and start it, delete it; each time until a command ran in it."""
    cold = ["--cold"] if way == "cold" else []
    with _timed(times.created):
        made = json.loads(shed("create", name, "--image", "base", "--memory", _MEMORY, "--json", *cold))["shed"]
        shed("exec", name, "--", "true")
    assert made["boot"] == way
    times.hello.append((made["timings"].get("restore", 0.0) + made["timings"].get("vm", 0.0) + made["timings"]["agent"]) / 1000)
    shed("stop", name)
    with _timed(times.started):
        shed("start", name, *cold)
        shed("exec", name, "--", "true")
    shed("delete", name, "--force")


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
        ratio = statistics.median(found["warm"]) / statistics.median(found["cold"])
        title = {"created": "create to first exec", "started": "start to first exec", "hello": "process to hello"}[what]
        for way in _WAYS:
            print(f"{title}, {many} at once, {way}: {_percentiles(found[way])}", flush=True)
        print(f"  ratio of medians {ratio:.3f}", flush=True)


def _percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    shown = (f"p{percent} {ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]:.3f} s" for percent in (50, 90, 99))
    return f"{', '.join(shown)} of {len(ordered)}"


def _show_steps(data: Path) -> None:
    """Print the medians of the steps of configure, of sheds that ran alone."""
    for way in _WAYS:
        steps: dict[str, list[float]] = {}
        for found in _steps(data / "logs/server.log", f"{way}-1-"):
            for name, spent in found.items():
                steps.setdefault(name, []).append(spent)
        shown = ", ".join(f"{name} {statistics.median(spent):.0f}" for name, spent in steps.items())
        print(f"steps of configure, {way}, ms: {shown}", flush=True)


def _steps(log: Path, prefix: str) -> Iterator[dict[str, float]]:
    for line in log.read_text().splitlines():
        found = re.search(rf"shed {prefix}\S+: guest ready, steps (\{{.*\}})", line)
        if found:
            yield ast.literal_eval(found[1])


def _show_memory(data: Path) -> None:
    """Print the memory that idle sheds take together, divided by their number: proportional sets, and the host's own account."""
    for way in _WAYS:
        names = [f"idle-{way}-{number}" for number in range(10)]
        cold = ["--cold"] if way == "cold" else []
        for number, name in enumerate(names):
            shed("create", name, "--image", "base", "--memory", _MEMORY, *cold)
            if number in {0, len(names) - 1}:
                time.sleep(_CALM)
                each = statistics.mean(_proportional(data, other) for other in names[: number + 1])
                print(f"memory of each of {number + 1} idle sheds, {way}: {each:.1f} MB", flush=True)
        for name in names:
            shed("delete", name, "--force")


def _proportional(data: Path, name: str) -> float:
    """Return the proportional set size of a shed's process, in MB."""
    pid = json.loads((data / "instances" / name / "vm.json").read_text())["pid"]
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0]) / 1024
