"""buildah and podman with a storage of their own, which holds the image ``localhost/busybox``."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.images.kit import archive

BUSYBOX = "localhost/busybox"


@dataclass(frozen=True)
class Containers:
    """The storage in a folder."""

    folder: Path
    env: dict[str, str]
    """What tells the tools of it; also that no container runtime is needed."""

    def run(self, *words: str | Path) -> str:
        """Run buildah, or podman."""
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=False, env=self.env, timeout=280
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def make_containers(folder: Path, path: str) -> Containers:
    """Make a storage in `folder`; `path` is where programs are."""
    folder.mkdir()
    storage = folder / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n')
    settings = folder / "containers.conf"
    settings.write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n')
    env = {
        "PATH": path,
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(settings),
        "BUILDAH_ISOLATION": "chroot",
    }
    env["HOME"] = str(folder)
    containers = Containers(folder, env)
    containers.run(
        "buildah", "tag", containers.run("buildah", "pull", "--quiet", f"oci-archive:{archive('busybox')}"), BUSYBOX
    )
    return containers
