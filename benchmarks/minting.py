"""Minting: from the layers to a checked EROFS blob, beside `umoci unpack` and then erofs-utils' `mkfs.erofs` on the folder.

Both start at the same OCI layers, and use the same algorithm.  What shed does more is inside its time: the image is checked, and
every extent is read back and compared.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import command, compare, show
from benchmarks.material import debian_archive
from benchmarks.world import SHED, shed
from shed.run import run
from support.erofs_utils import version

ALGORITHMS = {"lz4": ("-zlz4", "-C65536"), "lz4hc": ("-zlz4hc,9", "-C65536"), "zstd": ("-zzstd,3", "-C65536")}


def main() -> None:
    """Compare time, size and memory for each algorithm."""
    archive = debian_archive()
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
        "import sys; from pathlib import Path; from shed.run import run; from support.erofs_utils import mkfs_erofs;"
        f"run(['umoci', 'unpack', *sys.argv[1:], '--image', {f'{layout}:debian'!r}, {str(bundle)!r}]);"
        f"mkfs_erofs(Path({str(theirs)!r}), Path({f'{bundle}/rootfs'!r}), *{options!r}, '--quiet')"
    )
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    mint = command([SHED, "image", "build", "--from-oci-archive", layout, "-n", "bench", "--compression", algorithm], before=clear_ours)
    replaced = command([sys.executable, "-c", program, *rootless], before=clear_theirs)
    result = compare(mint, replaced)
    show(f"minting, {algorithm}", "shed", "umoci + mkfs.erofs", result)
    ours = _root_size(data / "images")
    print(f"  size: shed {ours / 1e6:.1f} MB, mkfs.erofs {theirs.stat().st_size / 1e6:.1f} MB, ratio {ours / theirs.stat().st_size:.3f}")
    print(f"  peak memory: shed {result.peak / 1e6:.0f} MB")


def _root_size(images: Path) -> int:
    """Return the size of the root blob of the image that was minted, in bytes."""
    blobs = images / "blobs/sha256"
    tag = json.loads((images / "tags/bench.json").read_text())
    manifest = json.loads((blobs / tag["digest"].removeprefix("sha256:")).read_text())
    root = str(manifest["annotations"]["io.shed.rootfs.erofs.digest"]).removeprefix("sha256:")
    return (blobs / root).stat().st_size
