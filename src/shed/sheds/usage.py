"""What a server's data takes up on the disk, by kind.

Two numbers each: ``size_bytes``, as long as the files are, and ``disk_bytes``, what the file system has given them.
They differ for writable layers, which are sparse.  A blob counts once however many images share it, and a hard link
once.  What clones share (reflinks) counts in each of them, and once in all together, as far as the file system tells
which extents are shared: XFS and Btrfs do, ZFS does not.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shed.backends.interface import Templates
from shed.config.paths import Paths
from shed.errors import ShedError
from shed.images.annotations import blobs_of
from shed.images.references import all_tags
from shed.oci.digest import Digest, short
from shed.oci.partial import partials
from shed.oci.store import LayoutStore
from shed.sheds import folders
from shed.sheds.orphans import find_orphans
from shed.sheds.space import Extent, Space, counted_twice, extents_of, measure, space_of


@dataclass(slots=True)
class Kind:
    """All things of one kind: each with its name and space, and, where things share, the space of all together."""

    items: list[tuple[str, Space]]
    together: Space | None = None
    unique: dict[str, int] = field(default_factory=dict)
    """Bytes on the disk that are the thing's alone: of an image, those that no other image has."""
    shared: list[Extent] = field(default_factory=list)
    """What clones share."""

    @property
    def total(self) -> Space:
        """What all take up."""
        return self.together if self.together is not None else sum((space for _, space in self.items), Space())

    def to_wire(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        items = [
            {"name": name, **space.to_wire(), **({"unique_bytes": self.unique[name]} if name in self.unique else {})}
            for name, space in self.items
        ]
        return {"count": len(items), **self.total.to_wire(), "items": items}


def usage(paths: Paths, store: LayoutStore, saved: Templates | None) -> dict[str, Any]:
    """Return what is taken up below `paths` and in `store`, as the API shows it: ``kinds`` by name, and ``total``.

    `saved` has the templates of VMs, if the backend makes any.  What cannot be read is left out.
    """
    kinds = {
        "images": _images(store),
        "downloads": Kind(
            [(short(digest), space_of(status)) for digest, status in sorted(partials(store.blobs).items())]
        ),
        "sheds": _clones((name, (paths.instances / name, paths.uppers / name)) for name in folders.names(paths)),
        "snapshots": _clones((path.name, (path,)) for path in _visible(paths.snapshots)),
        "templates": _clones((path.name, (path,)) for path in _visible(paths.templates)),
        "spares": _clones((path.name, (path,)) for path in _visible(paths.spares)),
        "logs": Kind([(path.name, measure(path)) for path in _visible(paths.logs)]),
        "orphans": Kind([(str(orphan.path), orphan.space) for orphan in find_orphans(paths, saved)]),
    }
    between = [extent for kind in kinds.values() for extent in kind.shared]
    twice = counted_twice(between) - sum(counted_twice(kind.shared) for kind in kinds.values())
    total = sum((kind.total for kind in kinds.values()), Space(disk=-twice))
    return {"kinds": {name: kind.to_wire() for name, kind in kinds.items()}, "total": total.to_wire()}


def _visible(folder: Path) -> list[Path]:
    """Return what is in a folder, if there is one, but for what is being made or removed."""
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")] if folder.is_dir() else []


def _clones(entries: Iterable[tuple[str, tuple[Path, ...]]]) -> Kind:
    """Return things whose files may be clones of others."""
    kind = Kind([])
    for name, paths in entries:
        space, shared = measure(*paths), extents_of(*paths)
        kind.items.append((name, space))
        kind.unique[name] = max(space.disk - sum(length for _, length in shared), 0)
        kind.shared += shared
    kind.together = sum((space for _, space in kind.items), Space(disk=-counted_twice(kind.shared)))
    return kind


def _images(store: LayoutStore) -> Kind:
    present = store.inventory()
    names: dict[Digest, list[str]] = {}
    for name, digest in all_tags(store):
        names.setdefault(digest, []).append(name)
    manifests = set(names)
    with contextlib.suppress(ShedError):
        manifests |= {entry.digest for entry in store.index().manifests}
    images: dict[str, set[Digest]] = {}
    for digest in sorted(manifests, key=lambda digest: names.get(digest, [digest])):
        with contextlib.suppress(ShedError):
            images[", ".join(names.get(digest, [short(digest)]))] = (
                blobs_of(digest, store.read_manifest(digest)) & present.keys()
            )
    holders = Counter(blob for blobs in images.values() for blob in blobs)
    kind = Kind([], measure(store.root / "cache"))
    for name, blobs in images.items():
        kind.items.append((name, sum((space_of(present[blob]) for blob in blobs), Space())))
        kind.unique[name] = sum(present[blob].st_blocks * 512 for blob in blobs if holders[blob] == 1)
    kind.together = sum(map(space_of, present.values()), kind.total)
    return kind
