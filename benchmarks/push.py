"""Publishing: `shed image push` to an empty registry, beside `skopeo copy` of an OCI layout with the same blobs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.harness import command, compare, show
from benchmarks.material import debian_archive
from benchmarks.world import SHED, shed
from shed.run import run
from support.registries.docker_registry import docker_registry


def main() -> None:
    """Compare the time for the same bytes to the same registry on loopback."""
    archive = debian_archive()
    with tempfile.TemporaryDirectory(prefix="shed-bench-", dir=archive.parent) as folder:
        scratch = Path(folder)
        os.environ["SHED_DATA_DIR"], os.environ["SHED_RUNTIME_DIR"] = str(scratch / "data"), str(scratch / "run")
        shed("image", "bootkit", "build")
        shed("image", "build", "--from-oci-archive", archive, "-n", "bench")
        with docker_registry(scratch / "registry") as registry:
            reference, layout = f"{registry.address}/bench:v1", f"oci:{scratch / 'layout'}:bench"
            shed("image", "push", "bench", reference, "--local")
            run(["skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{reference}", layout])
            size = sum(path.stat().st_size for path in (scratch / "layout/blobs/sha256").iterdir())

            def empty() -> None:
                """Let every run find a registry that has nothing."""
                registry.stop()
                shutil.rmtree(registry.storage)
                registry.start()

            ours = command([SHED, "image", "push", "bench", reference, "--local"], before=empty)
            theirs = command(
                [
                    "skopeo",
                    "copy",
                    "--all",
                    "--preserve-digests",
                    "--dest-tls-verify=false",
                    layout,
                    f"docker://{reference}",
                ],
                before=empty,
            )
            result = compare(ours, theirs)
    show("push", "shed", "skopeo copy", result)
    print(f"  {size / 1e6:.0f} MB: shed {size / 1e6 / result.a:.0f} MB/s, skopeo {size / 1e6 / result.b:.0f} MB/s")
    print(f"  peak memory: shed {result.peak / 1e6:.0f} MB")
