"""`python -m benchmarks [NAME...]`: run all benchmarks, or those named."""

from __future__ import annotations

import importlib
import sys

NAMES = ("startup", "minting", "push", "pull", "store", "boot", "warm", "exec", "ssh", "access", "connect", "hostile")


def main() -> None:
    """Run them in order."""
    wanted = sys.argv[1:] or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for name in wanted:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
