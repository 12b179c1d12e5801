"""A store of the benchmarks' own, with a boot kit and the base image, and a server that ends with the benchmark."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.material import CACHE

SHED = Path(sys.executable).with_name("shed")
_BASE = Path(__file__).resolve().parents[1] / "images/base/build"


def shed(*words: str | Path) -> str:
    """Run the command line and return what it printed; a failure ends the benchmark."""
    done = subprocess.run([SHED, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"shed {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


@contextlib.contextmanager
def world() -> Iterator[Path]:
    """Yield the data folder; the server of its own stops at the end, the store stays for the next run."""
    data = CACHE / "data"
    data.mkdir(parents=True, exist_ok=True)
    os.environ["SHED_DATA_DIR"], os.environ["SHED_RUNTIME_DIR"] = str(data), str(CACHE / "run")
    shed("image", "bootkit", "build")
    archive = CACHE / "base.oci.tar"
    if not archive.exists():
        subprocess.run([_BASE, archive], check=True, stdout=subprocess.DEVNULL)
    shed("image", "build", "--from-oci-archive", archive, "-n", "base")
    try:
        yield data
    finally:
        shed("server", "stop")
