"""Finding an image in the store by what a user calls it: a tag, a reference that it was pulled by, a digest, or the start of one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shed.errors import DataError, NotFoundError, UsageError
from shed.images import refs
from shed.oci.digest import SHORT_HEX, Digest
from shed.oci.store import LayoutStore

_DIGEST_START = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Found:
    """An image: the digest of its manifest, and the name it was found by or, failing that, one that it has."""

    digest: Digest
    name: str


def find(store: LayoutStore, reference: str) -> Found:
    """Return the image that `reference` means: a tag, else what was pulled by it, else a digest or at least 12 of its hex digits.

    Raises `NotFoundError` (IMAGE_NOT_FOUND), and `UsageError` when a short digest means several images.
    """
    if _NAME.fullmatch(reference) and (tag := store.tag(reference)):
        return Found(tag.digest, reference)
    names = {digest: name for name, digest in reversed(all_tags(store))}
    if pulled := refs.lookup(store, reference):
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
        hint="see `shed image ls`; make one with `shed image build`",
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
