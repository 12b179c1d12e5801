"""References: how users name images, and which image was pulled by which reference.

An image is named by a tag of the store, by the reference that it was pulled by, by its digest, or by the start of one:
`find_image`.

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
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shed.config.images import VARIANTS
from shed.errors import ConflictError, DataError, NotFoundError, ShedError, UsageError
from shed.fsutil import Waiting, atomic_write, locked, storage_errors
from shed.images.annotations import BootAnnotations
from shed.oci.digest import SHORT_HEX, Digest, parse_digest
from shed.oci.fields import Fields, decode_object
from shed.oci.registry.reference import parse_reference
from shed.oci.store import LayoutStore
from shed.progress import Stop

_HINT = "see `shed image ls`; make one with `shed image build`"
_DIGEST_START = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Found:
    """An image: the digest of its manifest, and the name it was found by or, failing that, one that it has."""

    digest: Digest
    name: str


def find_image(store: LayoutStore, reference: str) -> Found:
    """Return the image that `reference` means.

    It is a tag, else what was pulled by it, else a digest or at least 12 of its hex digits.

    Raises `NotFoundError` (IMAGE_NOT_FOUND), and `UsageError` when a short digest means several images.
    """
    if _NAME.fullmatch(reference) and (tag := store.tag(reference)):
        return Found(tag.digest, reference)
    names = {digest: name for name, digest in reversed(all_tags(store))}
    if pulled := lookup(store, reference):
        return Found(pulled, names.get(pulled, ""))
    match = _DIGEST_START.fullmatch(reference)
    if match and (len(match[1]) >= SHORT_HEX):
        start = "sha256:" + match[1]
        known = {entry.digest for entry in store.index().manifests} | names.keys()
        found = sorted(digest for digest in known if digest.startswith(start))
        if len(found) > 1:
            shown = ", ".join(digest[: len(start) + 4] for digest in found)
            raise UsageError(
                f"{reference} means {len(found)} images: {shown}", code="AMBIGUOUS_REFERENCE", hint="give more digits"
            )
        if found:
            return Found(found[0], names.get(found[0], ""))
    elif match and reference.startswith("sha256:"):
        raise UsageError(
            f"{reference} is too short to be an image's digest", hint=f"give at least {SHORT_HEX} hex digits"
        )
    raise NotFoundError(
        f"no image is called {reference!r}",
        code="IMAGE_NOT_FOUND",
        hint=f"make it from Debian packages: shed setup --image {reference}" if reference in VARIANTS else _HINT,
    )


def all_tags(store: LayoutStore) -> list[tuple[str, Digest]]:
    """Return name and digest of all tags, sorted by name, without those whose files are damaged."""
    result = []
    for name in store.tag_names():
        try:
            tag = store.tag(name)
        except (DataError, UsageError):
            continue
        if tag:
            result.append((name, tag.digest))
    return result


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
