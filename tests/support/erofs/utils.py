"""The oracle: erofs-utils 1.9 of Debian sid, unpacked into a cache folder and run through its own dynamic loader.

The machine's own erofs-utils (bookworm has 1.5) is never used.  apt verifies signatures and hashes in a private apt
root, so neither root nor a change to the machine's package lists is needed.  A machine that cannot fetch the packages
fails the test: an oracle that is silently absent proves nothing.

    ~/.cache/shed/erofs-utils/        or $SHED_TEST_CACHE/erofs-utils
        lock                          one process fetches, the others wait
        apt/                          the private apt root
        root/                         packages unpacked; appears by rename, complete
"""

from __future__ import annotations

import functools
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from shed.fsutil import locked
from shed.run import Completed, run

_SUITE = "sid"
_MIRROR = "http://deb.debian.org/debian"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MAJOR = "1.9."


def cache_dir() -> Path:
    """Return the folder where test tools are kept between runs."""
    chosen = os.environ.get("SHED_TEST_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "shed") / "erofs-utils"


def mkfs_erofs(image: Path, source: Path, *options: str, env: Mapping[str, str] | None = None) -> Completed:
    """Make `image` from the folder or tar `source`, with `options` of mkfs.erofs before them."""
    return _tool("mkfs.erofs", *options, str(image), str(source), env=env)


def fsck_erofs(image: Path, *options: str, extract: Path | None = None, check: bool = True) -> Completed:
    """Check `image`, or extract it into the folder `extract` (owners, modes and xattrs too, as far as we may set
    them).
    """
    extraction = [] if extract is None else [f"--extract={extract}", "--preserve", "--overwrite", "--xattrs"]
    return _tool("fsck.erofs", *extraction, *options, str(image), check=check)


def dump_erofs(image: Path, *options: str) -> str:
    """Return what dump.erofs prints about `image`."""
    return _tool("dump.erofs", *options, str(image)).stdout.decode()


def version() -> str:
    """Return the version of erofs-utils, such as ``1.9.4``."""
    return _tool("mkfs.erofs", "--version").stdout.decode().split()[2]


def _tool(program: str, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None) -> Completed:
    root = _root()
    return run([*_loader(root), str(root / "usr/bin" / program), *arguments], check=check, timeout=280, env=env)


def _loader(root: Path) -> Sequence[str]:
    libraries = next((root / "usr/lib").glob("*/libc.so.6")).parent
    return [str(next(libraries.glob("ld-linux-*.so.*"))), "--library-path", str(libraries)]


@functools.cache
def _root() -> Path:
    cache = cache_dir()
    root = cache / "root"
    if not root.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / "lock", limit=math.inf):
            if not root.is_dir():
                _fetch(cache / "apt", root)
    return root


def _fetch(apt: Path, root: Path) -> None:
    for folder in ("lists/partial", "archives/partial", "etc"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    (apt / "etc/sources.list").write_text(f"deb {signed}{_MIRROR} {_SUITE} main\n")
    (apt / "status").write_bytes(b"")
    settings = {
        "Dir::State::Lists": apt / "lists",
        "Dir::State::Status": apt / "status",
        "Dir::State::extended_states": apt / "extended_states",
        "Dir::Cache": apt,
        "Dir::Cache::Archives": apt / "archives",
        "Dir::Etc::SourceList": apt / "etc/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    hint = "the tests of EROFS need apt-get and a way to deb.debian.org"
    run(["apt-get", *options, "--quiet", "update"], hint=hint, timeout=200)
    run(["apt-get", *options, "--quiet", "--yes", "--download-only", "install", "erofs-utils"], hint=hint, timeout=250)
    staging = root.with_suffix(".new")
    shutil.rmtree(staging, ignore_errors=True)
    for package in sorted((apt / "archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", package, staging])
    found = run([*_loader(staging), str(staging / "usr/bin/mkfs.erofs"), "--version"]).stdout.decode()
    assert _MAJOR in found, f"Debian {_SUITE} has {found.strip()}; these tests are written for erofs-utils {_MAJOR}x"
    staging.rename(root)
    shutil.rmtree(apt)
