"""How long `shed version` takes, beside the interpreter doing nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness import command, compare, show

SHED = Path(sys.executable).with_name("shed")


def main() -> None:
    """Compare the two, twenty times each: they are short."""
    result = compare(command([SHED, "version"]), command([sys.executable, "-c", "pass"]), runs=20, warmup=2)
    show("start", "shed version", "python3 -c pass", result)
