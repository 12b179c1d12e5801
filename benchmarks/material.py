"""What benchmarks need and is made once, kept in ``.cache/bench``.

An image, a Debian root of about 500 MB in three layers; and a disk with clients of package registries.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from shed.oci.pack import pack_archive
from shed.run import run

CACHE = Path(__file__).resolve().parents[1] / ".cache/bench"
_PACKAGES = "build-essential,git,python3,curl,ca-certificates,openssh-client,sudo,tmux,vim"
_CLIENTS = "ca-certificates,npm,python3-pip"
_SLIM = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")]


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


def clients_disk() -> Path:
    """Return an ext4 image of a Debian root with apt, pip and npm, and with room."""
    disk = CACHE / "clients.ext4"
    if not disk.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            root, made = Path(folder) / "root", Path(folder) / "disk"
            run(["mmdebstrap", "--variant=apt", f"--include={_CLIENTS}", *_SLIM, "trixie", root])
            run(["mke2fs", "-q", "-t", "ext4", "-d", root, made, "3G"])
            made.rename(disk)
    return disk


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
