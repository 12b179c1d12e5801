"""Leases: what running work needs of the store although nothing there names it yet, so that a prune spares it.

::

    .gc.lock             flock: shared for the moment in which a lease grows, exclusive while a prune looks and deletes
    leases/PID-RANDOM    one line for each thing: ``blob sha256:…``, or ``image sha256:…`` (a manifest and all that it
                         names); flock: held by the lease's owner until its work is done

The rule is **lease first, look afterwards**.  Who wants a blob that may be there already writes it into a lease and
only then looks, and who adds a blob leases it before it gets its name.  A prune that began earlier has ended by then,
and what it took is seen to be missing; one that begins later reads the lease.  A prune reads leases before everything
else: an image whose lease ends meanwhile already has its tag.

An owner that dies drops its flock, and the next prune removes the file.  That is safe here and nowhere else: each name
is used once, and the file appears locked, because both happen under ``.gc.lock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shed.errors import DataError
from shed.fsutil import locked, storage_errors
from shed.oci.digest import Digest, parse_digest

_LOCK = ".gc.lock"
_FOLDER = "leases"


class Lease:
    """An open lease.  It may be used by several threads."""

    def __init__(self, root: Path, path: Path, fd: int) -> None:
        self._root = root
        self._path = path
        self._fd = fd

    def blobs(self, *digests: Digest) -> None:
        """Keep these blobs, whether or not they are here yet.  Waits for a prune that is under way."""
        self._add("blob", *digests)

    def image(self, digest: Digest) -> None:
        """Keep the image with this manifest, as much as is or will be here of it.

        Waits for a prune that is under way.
        """
        self._add("image", digest)

    def _add(self, kind: str, *digests: Digest) -> None:
        lines = "".join(f"{kind} {digest}\n" for digest in digests).encode()
        with unpruned(self._root), storage_errors(self._path):
            while lines:
                lines = lines[os.write(self._fd, lines) :]


@dataclass(frozen=True, slots=True)
class Leased:
    """What the live leases of a store name."""

    blobs: frozenset[Digest]
    images: frozenset[Digest]


@contextlib.contextmanager
def lease(root: Path) -> Iterator[Lease]:
    """Yield a lease on the store in the folder `root`, which exists; it ends with the block.  Raises `StorageError`."""
    folder = root / _FOLDER
    path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
    with unpruned(root), storage_errors(path):
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield Lease(root, path, fd)
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


@contextlib.contextmanager
def unpruned(root: Path) -> Iterator[None]:
    """Keep prunes of the store in the folder `root` from beginning, for a moment; wait for one that is under way."""
    with locked(root / _LOCK, shared=True):
        yield


@contextlib.contextmanager
def pruning(root: Path) -> Iterator[Leased]:
    """Keep leases from being taken or growing, and yield what the live ones name; those of the dead are removed.

    Raises `DataError` for a lease that cannot be understood: it is of another version, and what it needs is not known.
    """
    with locked(root / _LOCK):
        yield _read_all(root / _FOLDER)


def _read_all(folder: Path) -> Leased:
    found: dict[str, set[Digest]] = {"blob": set(), "image": set()}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # it may end while we look
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _read(path, file.read(), found)
            else:
                path.unlink()
    return Leased(frozenset(found["blob"]), frozenset(found["image"]))


def _read(path: Path, data: bytes, found: dict[str, set[Digest]]) -> None:
    for line in data.decode(errors="replace").splitlines():
        kind, _, digest = line.partition(" ")
        try:
            found[kind].add(parse_digest(digest))
        except (KeyError, DataError):
            raise DataError(
                f"lease {path} cannot be understood: {line[:100]!r}", hint="wait for the process that holds it to end"
            ) from None
