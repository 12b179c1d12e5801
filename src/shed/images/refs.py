"""References: which image was pulled by which name of a registry.

``refs/HEX.json`` holds ``{"ref": …, "digest": …}``, HEX being the SHA-256 of the reference, written out in full;
``HEX.lock`` is held while it is pulled, and never removed.  The reference is the one that was pulled *by*, which need
not be the one that the image was built for.  An entry counts only as long as what it names can be used: it must hold
the reference that is asked for, and the manifest and the root file system must be here.  It protects nothing from being
pruned; tags, sheds and the server's configuration do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from shed.errors import ConflictError, DataError, ShedError, UsageError
from shed.fsutil import Waiting, atomic_write, locked, storage_errors
from shed.images.annotations import BootAnnotations
from shed.oci.digest import Digest, parse_digest
from shed.oci.fields import Fields, decode_object
from shed.oci.registry.reference import parse_reference
from shed.oci.store import LayoutStore
from shed.progress import Stop

_PATIENCE = 0.1
"""Seconds between two looks at whether another pull is done."""


def record(store: LayoutStore, reference: str, digest: Digest) -> None:
    """Note that `reference` is the image `digest`: the last step of a pull, when everything else is here.

    Raises `StorageError`.
    """
    path = _path(store, reference)
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    atomic_write(path, json.dumps({"ref": canonical(reference), "digest": digest}))


@contextlib.contextmanager
def pulling(store: LayoutStore, reference: str, stop: Stop) -> Iterator[None]:
    """Hold `reference` while it is pulled: who wants it too waits, and then finds it here.

    Raises what `stop` raises.
    """
    path = _path(store, reference).with_suffix(".lock")
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    waiting = Waiting()
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(path, wait=False))
                break
            except ConflictError as error:
                waiting.on(partial(str, error))
                stop.sleep(_PATIENCE)
        yield


def lookup(store: LayoutStore, reference: str) -> Digest | None:
    """Return the image that was pulled by `reference` when it can be used; None is a miss, whatever the cause."""
    with contextlib.suppress(ShedError):
        digest = recorded(store, reference)
        if digest is not None:
            root = BootAnnotations.parse(store.read_manifest(digest).annotations).root
            return digest if root is not None and store.has(root) else None
    return None


def recorded(store: LayoutStore, reference: str) -> Digest | None:
    """Return what the entry of `reference` names, usable or not; None without one.

    Raises `DataError` when it is damaged.
    """
    found = _read(_path(store, reference))
    return found[1] if found and found[0] == canonical(reference) else None


def all_references(store: LayoutStore) -> list[tuple[str, Digest]]:
    """Return reference and digest of all entries, sorted, without those that are damaged."""
    result = []
    for path in _files(store):
        with contextlib.suppress(DataError):
            if found := _read(path):
                result.append(found)
    return sorted(result)


def forget(store: LayoutStore, digest: Digest) -> list[str]:
    """Remove all entries of the image `digest`; return their references, sorted.  Raises `StorageError`."""
    references = [reference for reference, found in all_references(store) if found == digest]
    for reference in references:
        remove(_path(store, reference))
    return references


def stale(store: LayoutStore, needed: Collection[Digest]) -> list[Path]:
    """Return the files of entries that name none of the blobs `needed`, or are damaged."""
    result = []
    for path in _files(store):
        try:
            found = _read(path)
        except DataError:
            found = ("", Digest(""))
        if found and found[1] not in needed:
            result.append(path)
    return result


def remove(path: Path) -> None:
    """Remove an entry's file, if it is there.  Raises `StorageError`."""
    with storage_errors(path):
        path.unlink(missing_ok=True)


def _files(store: LayoutStore) -> list[Path]:
    folder = store.root / "refs"
    return (
        sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
        if folder.is_dir()
        else []
    )


def _path(store: LayoutStore, reference: str) -> Path:
    name = hashlib.sha256(canonical(reference).encode("utf-8", "surrogateescape")).hexdigest()
    return store.root / "refs" / f"{name}.json"


def canonical(reference: str) -> str:
    """Return `reference` with registry and tag written out, so that two ways to write one are one."""
    try:
        return str(parse_reference(reference))
    except UsageError:
        return reference


def _read(path: Path) -> tuple[str, Digest] | None:
    what = f"reference file {path}"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}", hint="see who owns it, or remove it") from error
    try:
        fields = Fields(decode_object(data, what), what)
        return fields.text("ref"), parse_digest(fields.text("digest"))
    except DataError as error:
        message = error.message if what in error.message else f"{what}: {error.message}"
        raise DataError(message, hint="remove the file; the next pull makes it anew") from None
