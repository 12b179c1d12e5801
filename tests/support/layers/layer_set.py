"""One set of layers, and what sets are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from support.layers.tars import Image, Item, file, folder, symlink, tar

ROOT = folder("./", mtime=1_600_000_000)
"""Every lowest layer has it: a root that is not in any layer has the time of its making in `umoci unpack`."""


@dataclass(frozen=True, slots=True)
class LayerSet:
    """Layers, bottom first, as uncompressed tars."""

    layers: tuple[bytes, ...]
    pack: Callable[[bytes], tuple[bytes, str]] | None = None
    """How each is compressed, and its media type; gzip unless given.  (Of these, Debian's umoci knows gzip alone, and
    is given that.)
    """
    umoci: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By path and field (``exists``, ``mtime``, …): why umoci shows something else."""
    umoci_refuses: str = ""
    """Why umoci does not unpack this at all."""

    def image(self) -> Image:
        """Return the image with its own compression."""
        image = Image(*self.layers)
        if self.pack:
            image.manifest["layers"] = [image.blob(*self.pack(layer)) for layer in self.layers]
        return image


def layer_set(
    *layers: tuple[Item, ...] | bytes, umoci: Mapping[tuple[str, str], str] | None = None, refuses: str = ""
) -> LayerSet:
    """Return the set of `layers`, each a tar or its members; `ROOT` comes first."""
    first, *others = layers
    lowest = tar(ROOT, *first) if isinstance(first, tuple) else first
    tars = [layer if isinstance(layer, bytes) else tar(*layer) for layer in others]
    return LayerSet((lowest, *tars), umoci=umoci or {}, umoci_refuses=refuses)


def with_xattrs(item: Item, xattrs: Mapping[str, bytes]) -> Item:
    """Return `item` with xattrs, whose values may be any bytes."""
    values = {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in xattrs.items()}
    item[0].pax_headers = {**item[0].pax_headers, **values}
    return item


def at(item: Item, time: str) -> Item:
    """Return `item` with a time in seconds, as PAX writes it."""
    item[0].pax_headers = {**item[0].pax_headers, "mtime": time}
    return item


LOWER = (
    folder("etc", mtime=10),
    file("etc/one", b"1", mtime=11),
    file("etc/two", b"22", mtime=12),
    folder("etc/deep", mtime=13),
    file("etc/deep/three", b"333", mtime=14),
    folder("usr", mtime=15),
    folder("usr/lib", mtime=16),
    file("usr/lib/x", b"x" * 5000, mtime=17),
    symlink("lib", "usr/lib", mtime=18),
    symlink("abs", "/usr/lib", mtime=19),
)
