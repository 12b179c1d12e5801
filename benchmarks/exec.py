"""The round trip of one command in a running shed: a whole `shed exec` process, beside Python doing nothing."""

from __future__ import annotations

import sys

from benchmarks.harness import command, compare, show
from benchmarks.world import SHED, shed, world


def main() -> None:
    """Compare `shed exec NAME -- true` with the same interpreter doing nothing."""
    with world():
        shed("create", "bench-exec", "--image", "base")
        try:
            result = compare(
                command([SHED, "exec", "bench-exec", "--", "true"]),
                command([sys.executable, "-c", "pass"]),
                runs=30,
                warmup=3,
            )
        finally:
            shed("delete", "bench-exec", "--force")
    show("exec round trip", "shed exec NAME -- true", "python3 -c pass", result)
