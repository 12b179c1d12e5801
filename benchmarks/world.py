"""A store of the benchmarks' own, with a boot kit and the base image, and a server that ends with the benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.material import CACHE

SHED = Path(sys.executable).with_name("shed")


def shed(*words: str | Path) -> str:
    """Run the command line and return what it printed; a failure ends the benchmark."""
    done = subprocess.run([SHED, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"shed {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


@contextlib.contextmanager
def world(settings: Mapping[str, object] | None = None) -> Iterator[Path]:
    """Yield the data directory of a server with `settings`.

    At the end its sheds and its server are ended.  The store is kept for the next run.
    """
    data, home = CACHE / "data", CACHE / "home"
    data.mkdir(parents=True, exist_ok=True)
    (home / ".config/shed").mkdir(parents=True, exist_ok=True)
    (home / ".config/shed/server.yaml").write_text(json.dumps(settings or {}))  # which is YAML, too
    os.environ["SHED_DATA_DIR"], os.environ["SHED_RUNTIME_DIR"], os.environ["HOME"] = (
        str(data),
        str(CACHE / "run"),
        str(home),
    )
    shed("image", "bootkit", "build")
    archive = CACHE / "base.oci.tar"
    if not archive.exists():
        shed("image", "make", "base", "--output", archive)
    shed("image", "build", "--from-oci-archive", archive, "-n", "base")
    try:
        yield data
    finally:
        try:
            for name in shed(
                "list", "--quiet"
            ).split():  # of a benchmark that was ended; a server that starts for it ends what is left
                shed("delete", "--force", name)
            for one in json.loads(shed("snapshot", "ls", "--json")):
                shed("snapshot", "rm", one["name"])
        finally:
            shed("server", "stop")
