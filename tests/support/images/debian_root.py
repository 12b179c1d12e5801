"""A clean Debian to install a package in: a folder to chroot to, unpacked from an archive that is kept for all later
test runs.
"""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

from shed.fsutil import locked
from shed.images.bootkit.debian_archive import KEYRING, DebianArchive
from support.images.kit import CACHE
from support.tools.fake_systemctl import FakeSystemctl

_ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'


class DebianRoot:
    """A minimal Debian with Python and nothing else; as far as its packages can tell, systemd runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["tar", "-xf", _archive(), "-C", folder], check=True)
        (folder / "run/systemd/system").mkdir(parents=True)
        self.systemctl = FakeSystemctl(folder / "var/fake", at="/var/fake")
        (folder / "usr/bin/systemctl").symlink_to("/var/fake/bin/systemctl")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program in there as its root, in process and mount namespaces of its own: what it starts ends with
        it.
        """
        command = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            _ENTER,
            str(self.folder),
            *words,
        ]
        env = {
            "PATH": os.defpath + ":/usr/sbin:/sbin",
            "HOME": "/root",
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=280)

    def must(self, *words: str) -> str:
        """Run a program that must succeed; return what it prints, errors last."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def _archive() -> Path:
    """Return the archive of the root, making it when it is not there."""
    source = DebianArchive()
    path = CACHE / f"root-{source.suite}.tar"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / "root.lock", limit=math.inf):
        if not path.exists():
            new = path.with_suffix(".new")
            options = ["--quiet", "--variant=minbase", "--include=python3", f"--keyring={KEYRING}", "--format=tar"]
            subprocess.run(["mmdebstrap", *options, source.suite, str(new), source.mirror], check=True)
            new.rename(path)
    return path
