"""The image of the benchmarks: a Debian root of about 500 MB in three layers, made once, kept in ``.cache/bench``."""

from __future__ import annotations

import tarfile
from pathlib import Path

from shed.oci.pack import pack_archive
from shed.run import run

CACHE = Path(__file__).resolve().parents[1] / ".cache/bench"
_PACKAGES = "build-essential,git,python3,curl,ca-certificates,openssh-client,sudo,tmux,vim"


def debian_archive() -> Path:
    """Return an OCI archive of a Debian root with a compiler, Python and git.

    It has three gzip layers; the first is about half of it.
    """
    archive = CACHE / "debian.oci.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        root = CACHE / "debian.tar"
        run(["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "trixie", root])
        layers = _split(root, 3)
        pack_archive(archive, layers, name="debian")
        for path in (root, *layers):
            path.unlink()
    return archive


def _split(root: Path, parts: int) -> list[Path]:
    """Cut a tar into several, in its own order; half of the bytes that are left go into each but the last."""
    left = root.stat().st_size
    outputs = [root.with_name(f"layer-{number}.tar") for number in range(parts)]
    with tarfile.open(root) as source:
        member = source.next()
        for output in outputs:
            quota = left if output == outputs[-1] else left // 2
            left -= quota
            with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as target:
                while member is not None and (quota > 0 or output == outputs[-1]):
                    target.addfile(member, source.extractfile(member) if member.isreg() else None)
                    quota -= member.size + 512
                    member = source.next()
    return outputs
