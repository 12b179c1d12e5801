"""Debian packages: which ones, how they get here, and what is in them.

The packages are pinned in ``packages.lock.json`` by name, version, size and SHA-256, so that a locked download needs no
signature check and no apt.  Mirrors drop old versions; then the suite's newest is taken, from an index whose signature
is checked, and the user is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from shed.errors import DataError, NotFoundError, UnavailableError
from shed.fsutil import atomic_file, storage_errors
from shed.images.bootkit.debian_archive import DebianArchive, Package
from shed.images.bootkit.elf import Elf
from shed.progress import Progress

LOCK_FILE = Path(__file__).with_name("packages.lock.json")
KERNEL_META = "linux-image-amd64"
"""Depends on the suite's current kernel package; in the lock file it stands for that package."""
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


@dataclass(frozen=True, slots=True)
class Deb:
    """A package that is here."""

    package: Package
    file: Path
    locked: bool
    """Whether it is the version that the lock file pins."""

    def members(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | str]]:
        """Yield (path, content) of the files whose path (``usr/lib/…``) is `wanted`.

        A symlink's content is its target, a `str`; a hardlink is yielded as the file that it names.
        Raises `DataError` when the package is damaged.
        """
        seen: dict[str, bytes] = {}
        try:
            with self.file.open("rb") as file, _data_tar(file) as archive:
                for member in archive:
                    path = member.name.removeprefix("./")
                    if not wanted(path):
                        continue
                    if member.issym():
                        yield path, member.linkname
                    elif member.islnk():
                        yield path, seen[member.linkname.removeprefix("./")]
                    elif member.isfile():
                        content = archive.extractfile(member)
                        seen[path] = content.read() if content else b""
                        yield path, seen[path]
        except (tarfile.TarError, EOFError, ValueError, KeyError, zstandard.ZstdError) as error:
            raise DataError(f"package {self.file} is damaged: {error}") from None

    def read(self, path: str) -> bytes:
        """Return the file `path` of the package.  Raises `DataError` when there is none."""
        for _, content in self.members(lambda name: name == path):
            if isinstance(content, bytes):
                return content
        raise DataError(f"package {self.package.name} {self.package.version} has no {path}")


def read_lock(path: Path = LOCK_FILE) -> dict[str, Package]:
    """Return the pinned packages, by the name that asks for them.  Raises `DataError`."""
    try:
        return {name: Package(**fields) for name, fields in json.loads(path.read_text())["packages"].items()}
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a package lock file: {error}") from None


def read_released(path: Path = LOCK_FILE) -> int:
    """Return of which release, in seconds since the epoch, the pinned packages are; 0 when the file does not say.

    Raises `DataError`.
    """
    try:
        return int(json.loads(path.read_text()).get("released", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a package lock file: {error}") from None


def write_lock(
    packages: Mapping[str, Package], archive: DebianArchive, path: Path = LOCK_FILE, *, released: int = 0
) -> None:
    """Pin `packages`, which are of the release of the time `released`: an older one is then taken for a replay."""
    content = {
        "suite": archive.suite,
        "released": released,
        "packages": {name: asdict(packages[name]) for name in sorted(packages)},
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def newest(name: str, archive: DebianArchive) -> Package:
    """Return what the suite has now for `name`; for `KERNEL_META` the kernel itself.  Raises `NotFoundError`."""
    if name == KERNEL_META:
        kernels = [package for package in archive.dependencies(name) if package.startswith("linux-image-")]
        if not kernels:
            raise NotFoundError(f"{KERNEL_META} of Debian {archive.suite} depends on no kernel")
        name = kernels[0]
    return archive.newest(name)


def fetch_debs(
    names: Iterable[str],
    *,
    archive: DebianArchive,
    cache: Path,
    progress: Progress,
    locked: bool = False,
    lock: Mapping[str, Package] | None = None,
) -> dict[str, Deb]:
    """Return the packages `names`, downloaded into the folder `cache` unless they are there.

    `lock` says which versions; the boot kit's lock file, unless it is given.  A version that the mirror no longer has
    is replaced by the suite's newest with a warning; with `locked`, `UnavailableError` (PACKAGE_GONE) is raised
    instead.  Also raises `DataError` for bytes that are not what the lock says.
    """
    lock = read_lock() if lock is None else lock
    with storage_errors(cache):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    debs = {}
    for name in names:
        pinned = lock[name]
        try:
            debs[name] = Deb(pinned, _download(pinned, archive, cache, progress), True)
        except NotFoundError as error:
            if locked:
                raise UnavailableError(
                    f"{pinned.name} {pinned.version} is not on the mirror any more: {error}",
                    code="PACKAGE_GONE",
                    hint="build without the lock, or pin new versions: python -m shed.images.bootkit.packages",
                ) from None
            package = newest(name, archive)
            progress.warn(
                f"{pinned.name} {pinned.version} is not on the mirror any more: using {package.name} {package.version}"
            )
            debs[name] = Deb(package, _download(package, archive, cache, progress), False)
    return debs


def _download(package: Package, archive: DebianArchive, cache: Path, progress: Progress) -> Path:
    """Return the verified file of `package`.  Raises `NotFoundError` when the mirror does not have it."""
    target = cache / package.path.rpartition("/")[2]
    with contextlib.suppress(FileNotFoundError), target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == package.sha256:
            return target
    sha, size = hashlib.sha256(), 0
    with atomic_file(target) as file:
        for chunk in archive.fetch(package.path):
            sha.update(chunk)
            size += file.write(chunk)
            if size > package.size:
                break
            progress.bytes(package.name, size, package.size)
        if size != package.size or sha.hexdigest() != package.sha256:
            raise DataError(
                f"{package.name} {package.version} from {archive.mirror} is not the pinned package (SHA-256 "
                f"{sha.hexdigest()})",
                hint="something between here and the mirror alters or cuts downloads",
            )
    return target


@contextlib.contextmanager
def _data_tar(file: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Yield the tar of a package's files.

    A package is an ar archive (deb(5)): debian-binary, control.tar.*, data.tar.*.
    """
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise ValueError("no ar archive")
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        name, size = header[:16].rstrip().rstrip(b"/").decode(), int(header[48:58])
        if name.startswith("data.tar"):
            break
        file.seek(size + size % 2, 1)
    else:
        raise ValueError("no data.tar in it")
    if name.endswith(".zst"):
        with (
            zstandard.ZstdDecompressor().stream_reader(file) as plain,
            tarfile.open(fileobj=cast(BinaryIO, plain), mode="r|") as archive,
        ):
            yield archive
    else:
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            yield archive


LOADER = "ld-linux-x86-64.so.2"
_FOLDER = "usr/lib/x86_64-linux-gnu/"


def read_libraries(debs: Iterable[Deb]) -> dict[str, bytes]:
    """Return the libraries in `debs` by the names that programs ask for."""
    files: dict[str, bytes | str] = {}
    for deb in debs:
        for path, content in deb.members(
            lambda path: path.startswith(_FOLDER) and "/" not in path[len(_FOLDER) :] and ".so" in path
        ):
            files[path[len(_FOLDER) :]] = content
    resolved = {name: files.get(content) if isinstance(content, str) else content for name, content in files.items()}
    return {name: content for name, content in resolved.items() if isinstance(content, bytes)}


def closure(programs: Mapping[str, bytes], libraries: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return all of `libraries` that `programs` need, and the loader.  Raises `DataError` when one is missing."""
    found = {LOADER: libraries[LOADER]}
    pending = dict(programs)
    while pending:
        name, data = pending.popitem()
        for needed in Elf(data, name).needed():
            if needed in found:
                continue
            if needed not in libraries:
                raise DataError(f"{name} needs the library {needed}, which is in none of the packages")
            found[needed] = pending[needed] = libraries[needed]
    return found
