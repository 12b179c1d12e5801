"""Minting: from layers to a checked EROFS image, beside `umoci unpack` followed by `mkfs.erofs` on the directory.

All start with the same OCI layers, and use the same algorithm: shed with each of its two writers, and the tools that it
replaces.  The time of shed includes what it does beyond them: the image is checked, and every extent is read back and
compared.  Then all files of the images are read through the kernel, with an empty page cache.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Subject, command, compare, show
from benchmarks.material import debian_archive
from benchmarks.world import SHED, shed
from shed.run import run
from support.erofs.mount import mounted
from support.erofs.utils import version
from support.images.kit import ROOT
from support.tools.engine import environment

WRITERS = {"builtin": (), "container": ("--build-tools-version", "dev")}
ALGORITHMS = {"lz4": ("-zlz4", "-C65536"), "lz4hc": ("-zlz4hc,9", "-C65536"), "zstd": ("-zzstd,3", "-C65536")}


def main() -> None:
    """Compare time, size and memory for each algorithm."""
    archive = debian_archive()
    os.environ.update(environment())
    run([ROOT / "images/build-tools/build"])
    print(f"minting: {archive.stat().st_size / 1e6:.0f} MB archive, against umoci unpack and mkfs.erofs {version()}")
    for algorithm, options in ALGORITHMS.items():
        with tempfile.TemporaryDirectory(prefix="shed-bench-", dir=archive.parent) as scratch:
            _compare(archive, Path(scratch), algorithm, options)


def _compare(archive: Path, scratch: Path, algorithm: str, options: tuple[str, ...]) -> None:
    layout, bundle, theirs = scratch / "layout", scratch / "bundle", scratch / "theirs.erofs"
    data = scratch / "data"
    os.environ["SHED_DATA_DIR"], os.environ["SHED_RUNTIME_DIR"] = str(data), str(scratch / "run")
    run(["skopeo", "copy", f"oci-archive:{archive}", f"oci:{layout}:debian"])

    def clear_theirs() -> None:
        shutil.rmtree(bundle, ignore_errors=True)
        theirs.unlink(missing_ok=True)

    def clear_ours() -> None:
        shutil.rmtree(data / "images", ignore_errors=True)
        shed("image", "bootkit", "build")

    program = (
        "import sys; from pathlib import Path; from shed.run import run; from support.erofs.utils import mkfs_erofs;"
        f"run(['umoci', 'unpack', *sys.argv[1:], '--image', {f'{layout}:debian'!r}, {str(bundle)!r}]);"
        f"mkfs_erofs(Path({str(theirs)!r}), Path({f'{bundle}/rootfs'!r}), *{options!r}, '--quiet')"
    )
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    build: list[str | Path] = [
        SHED,
        "image",
        "build",
        "--from-oci-archive",
        layout,
        "-n",
        "bench",
        "--compression",
        algorithm,
    ]
    replaced = command([sys.executable, "-c", program, *rootless], before=clear_theirs)
    for writer, words in WRITERS.items():
        result = compare(command([*build, *words], before=clear_ours), replaced, runs=3)
        show(f"minting, {algorithm}", f"shed ({writer})", "umoci + mkfs.erofs", result)
        ours = _root(data / "images")
        size, other = ours.stat().st_size, theirs.stat().st_size
        print(f"  size: shed {size / 1e6:.1f} MB, mkfs.erofs {other / 1e6:.1f} MB, ratio {size / other:.3f}")
        print(f"  peak memory: shed {result.peak / 1e6:.0f} MB{' without what runs in the container' if words else ''}")
        if os.geteuid():
            print("  reading all files, cold: takes root")
            continue
        with mounted(ours, scratch / "ours") as first, mounted(theirs, scratch / "replaced") as second:
            show(
                f"  reading all files, cold, {algorithm}",
                f"shed ({writer})",
                "mkfs.erofs",
                compare(_reading(first), _reading(second)),
            )


def _reading(folder: Path) -> Subject:
    """Return a subject that reads every file of a mounted image, with an empty page cache."""
    words: list[str | Path] = ["sh", "-c", 'find "$0" -type f -exec cat {} + >/dev/null', folder]
    return command(words, before=_forget)


def _forget() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _root(images: Path) -> Path:
    """Return the root blob of the image that was minted."""
    blobs = images / "blobs/sha256"
    tag = json.loads((images / "tags/bench.json").read_text())
    manifest = json.loads((blobs / tag["digest"].removeprefix("sha256:")).read_text())
    root = str(manifest["annotations"]["io.shed.rootfs.erofs.digest"]).removeprefix("sha256:")
    return blobs / root
