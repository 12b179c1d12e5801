"""Measure whole commands in turn (A, B, A, B, ...) and report medians and the median of the pairs' ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Word = str | Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: wall-clock seconds, and the largest resident set of any of its processes in bytes (0 when not known)."""

    seconds: float
    peak: int = 0


Subject = Callable[[], Sample]


def command(words: Sequence[Word], *, before: Callable[[], None] | None = None) -> Subject:
    """Return a subject that runs a command to its end, after `before`, which is not timed.

    A command that fails ends the benchmark.
    """

    def subject() -> Sample:
        if before:
            before()
        start = time.perf_counter()
        child = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"{words}: exit code {child.returncode}\n{output.decode(errors='replace')}")
        return Sample(seconds, usage.ru_maxrss * 1024)

    return subject


@dataclass(frozen=True, slots=True)
class Comparison:
    """The medians of two subjects, and the median, smallest and largest ratio A/B of the pairs."""

    a: float
    b: float
    ratio: float
    low: float
    high: float
    peak: int
    """Largest peak memory of A in any run, in bytes."""


def compare(a: Subject, b: Subject, *, runs: int = 5, warmup: int = 1) -> Comparison:
    """Run both in turn, `warmup` pairs that do not count and then `runs` that do."""
    pairs = [(a(), b()) for _ in range(warmup + runs)][warmup:]
    return paired(*zip(*pairs, strict=True))


def paired(a: Sequence[Sample], b: Sequence[Sample]) -> Comparison:
    """Return the comparison of runs that were made in turn."""
    ratios = [one.seconds / other.seconds for one, other in zip(a, b, strict=True)]
    return Comparison(
        a=statistics.median(one.seconds for one in a),
        b=statistics.median(other.seconds for other in b),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        peak=max(one.peak for one in a),
    )


def show(title: str, a: str, b: str, result: Comparison) -> None:
    """Print one comparison as a line that can be quoted."""
    print(
        f"{title}: {a} {result.a:.3f} s, {b} {result.b:.3f} s, ratio {result.ratio:.2f} ({result.low:.2f} to "
        f"{result.high:.2f})",
        flush=True,
    )
