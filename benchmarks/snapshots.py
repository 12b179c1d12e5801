"""Moments of a running shed beside a warm create, in turn: what is kept, forked, suspended, and goes on.

For each size of memory: how long the shed stands still, how long a snapshot takes, and how long until the first
command has ended in what goes on from it, in a fork, and in a shed that was suspended and is touched; beside a warm and
a cold create up to theirs, and beside QEMU's own ``migrate`` of the same machine to a file.  Then how long each of many
that go on from one snapshot takes, and how much memory is its own.

``BENCH_SNAPSHOT_ROUNDS`` is how many rounds there are (default: 30), ``BENCH_SNAPSHOT_MEMORY`` the sizes in MiB
(default: ``512,2048``), ``BENCH_SNAPSHOT_WRITTEN`` the MiB that were written to the disk before (default: 100), and
``BENCH_SNAPSHOT_CHILDREN`` how many go on at the end (default: 20).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.world import SHED, shed, world
from shed.backends.qemu.monitor import connected
from shed.backends.qemu.saving import migrated

_ROUNDS = int(os.environ.get("BENCH_SNAPSHOT_ROUNDS", "30"))
_SIZES = tuple(map(int, os.environ.get("BENCH_SNAPSHOT_MEMORY", "512,2048").split(",")))
_WRITTEN = int(os.environ.get("BENCH_SNAPSHOT_WRITTEN", "100"))
_CHILDREN = int(os.environ.get("BENCH_SNAPSHOT_CHILDREN", "20"))
_WRITE = f"dd if=/dev/urandom of=/root/written bs=1M count={_WRITTEN} conv=fsync"
_BETWEEN = 1.0
"""Seconds until what a command has left to do is done."""


def main() -> None:
    """Measure and print."""
    for size in _SIZES:
        settings = {"default_cpus": 2, "default_memory_mb": size, "warm_spares": 0}
        with world({"default_image": "base", "qemu": settings}) as data:
            subprocess.run([SHED.with_name("shed-server"), "warm"], stdout=subprocess.DEVNULL, check=True)
            _show(size, _measure(data))
            _children(size)


def _measure(data: Path) -> dict[str, list[float]]:
    """Return seconds by what took them."""
    times: dict[str, list[float]] = defaultdict(list)
    log = data / "logs/server.log"
    shed("create", "dev", "--image", "base")
    shed("exec", "dev", "--user", "root", "--", "sh", "-c", _WRITE)
    for _ in range(_ROUNDS):
        for way, options in (("warm create", ()), ("cold create", ("--cold",))):
            with _timed(times[f"{way} to exec"]):
                shed("create", "other", "--image", "base", *options)
                shed("exec", "other", "--", "true")
            shed("delete", "--force", "other")
            time.sleep(_BETWEEN)
        before = log.stat().st_size
        with _timed(times["snapshot complete"]):
            shed("snapshot", "create", "dev", "kept")
        times["stood still"].append(_still(log, before))
        times["stands still for QEMU's migrate"].append(asyncio.run(_migrate(data)))
        for child in ("first", "later"):
            time.sleep(_BETWEEN)
            with _timed(times[f"{child} child to exec"]):
                shed("create", child, "--from-snapshot", "kept")
                shed("exec", child, "--", "true")
        shed("delete", "--force", "first", "later")
        shed("snapshot", "rm", "kept")
        time.sleep(_BETWEEN)
        with _timed(times["fork to exec"]):
            shed("fork", "dev", "fork")
            shed("exec", "fork", "--", "true")
        shed("delete", "--force", "fork")
        time.sleep(_BETWEEN)
        with _timed(times["suspend"]):
            shed("suspend", "dev")
        time.sleep(_BETWEEN)
        with _timed(times["wake by exec"]):
            shed("exec", "dev", "--", "true")
        time.sleep(_BETWEEN)
    shed("delete", "--force", "dev")
    return times


def _children(size: int) -> None:
    """Print what sheds take that go on from one snapshot, one after the other, and stay."""
    shed("create", "dev", "--image", "base")
    shed("snapshot", "create", "dev", "kept")
    names = [f"child-{number}" for number in range(_CHILDREN)]
    seconds: list[float] = []
    for name in names:
        with _timed(seconds):
            shed("create", name, "--from-snapshot", "kept")
            shed("exec", name, "--", "true")
    own = [_own(int(json.loads(shed("inspect", name, "--json"))["pid"])) for name in names]
    print(
        f"{size} MiB, {len(names)} that go on from one snapshot: to the exec p50 {statistics.median(seconds):.3f} s, "
        f"longest {max(seconds):.3f} s; memory of its own, p50 {statistics.median(own) / 1024:.0f} MiB, "
        f"most {max(own) / 1024:.0f} MiB",
        flush=True,
    )
    shed("delete", "--force", "dev", *names)
    shed("snapshot", "rm", "kept")


def _own(pid: int) -> int:
    """Return the KiB of a process that it shares with nobody."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE)))


async def _migrate(data: Path) -> float:
    """Have QEMU save the machine of the shed as it would by itself; return the seconds that it stands still."""
    target = data / "migrated"
    async with connected(data / "instances/dev") as monitor:
        begin = time.perf_counter()
        await monitor.execute("stop")
        with target.open("wb") as file:
            await monitor.lend("benchmark", file.fileno())
        await monitor.execute("migrate", uri="fd:benchmark")
        await migrated(monitor)
        await monitor.execute("cont")
        seconds = time.perf_counter() - begin
    target.unlink()
    return seconds


def _still(log: Path, before: int) -> float:
    """Return the seconds that a shed last stood still, as the `log` says behind its byte `before`."""
    with log.open() as file:
        file.seek(before)
        return float(re.findall(r"stood still for (\d+) ms", file.read())[-1]) / 1000


@contextlib.contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    into.append(time.perf_counter() - begin)


def _show(size: int, times: dict[str, list[float]]) -> None:
    warm = statistics.median(times["warm create to exec"])
    for what, found in times.items():
        last = sorted(found)[len(found) * 99 // 100]
        middle = statistics.median(found)
        print(
            f"{size} MiB, {what}: p50 {middle:.3f} s, p99 {last:.3f} s of {len(found)}; "
            f"{middle / warm:.2f} of a warm create to exec",
            flush=True,
        )
