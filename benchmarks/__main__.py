"""`python -m benchmarks [NAME...]`: run all benchmarks, or those named."""

from __future__ import annotations

import importlib
import signal
import sys

NAMES = (
    "startup",
    "minting",
    "push",
    "pull",
    "store",
    "boot",
    "warm",
    "snapshots",
    "exec",
    "ssh",
    "access",
    "connect",
    "egress",
    "clients",
    "agents",
    "opened",
    "hostile",
)


def main() -> None:
    """Run them in order."""
    wanted = sys.argv[1:] or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    for name in wanted:
        importlib.import_module(f"benchmarks.{name}").main()


def _end(number: int, _: object) -> None:
    """End as ctrl-C does, so that what was started ends too; another signal does not cut that short."""
    for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
