"""An image on another: the parent's tree to start from, and what came of it as one more layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shed.budget import Reserve
from shed.entries import Entry
from shed.oci.archive import Archive, open_archive, open_blob
from shed.oci.choose import Chosen, choose_image
from shed.oci.content import FileSlice
from shed.oci.descriptor import Descriptor
from shed.oci.diff import diff
from shed.oci.digest import Digest
from shed.oci.flatten import flatten
from shed.oci.layers import per_layer, read_layer
from shed.oci.pack import pack_archive
from shed.oci.staging import StagedBlob
from shed.oci.tarstream import Member, read_tar
from shed.oci.tarwrite import write_tar
from shed.oci.unpack import Spool
from shed.oci.unpacking import Part, Unpacking

_DEVICES = b"dev/"


@dataclass(frozen=True, slots=True)
class Parent:
    """An image that is open, and its tree."""

    archive: Archive
    chosen: Chosen
    entries: list[Entry]

    def write_root(self, path: Path) -> None:
        """Write the tree to the tar file `path`, without devices: who is not root cannot make them, and whoever unpacks it has them."""
        with path.open("wb") as file:
            file.writelines(write_tar(entry for entry in self.entries if not entry.path.startswith(_DEVICES)))


@contextlib.contextmanager
def open_parent(source: Path, *, scratch: Path) -> Iterator[Parent]:
    """Yield the image in the archive `source`; its layers are unpacked into `scratch`.

    Raises `DataError` when it is damaged.
    """
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(open_archive(source, scratch=scratch))
        chosen = choose_image(archive)

        def read(layer: Descriptor, diff_id: Digest, part: Part) -> list[Member]:
            blob = stack.enter_context(StagedBlob.create(scratch, Reserve(scratch).check))
            spool = stack.enter_context(Spool(scratch, part))
            source = open_blob(archive, layer, part.what)
            return read_layer(source, layer, diff_id, blob=blob, spool=spool, part=part)

        unpacking = Unpacking(Reserve(scratch))
        layers = per_layer(chosen.manifest, chosen.config, unpacking, read, of=f"{archive.name}: ")
        yield Parent(archive, chosen, list(flatten(layers)))


def pack_derived(
    output: Path, parent: Parent, root: Path, *, settings: Mapping[str, Any], name: str, created_by: str
) -> Digest:
    """Write an archive of `parent` and one more layer, which makes its tree that of the tar file `root`.

    Return the manifest's digest.

    `settings` go over the parent's, as a Containerfile's would.
    """
    layer = root.with_suffix(".layer")
    with root.open("rb") as tree, layer.open("wb") as file:
        whole = FileSlice(tree.fileno(), 0, root.stat().st_size)
        file.writelines(write_tar(diff(parent.entries, flatten([read_tar(whole, Unpacking().part("the new layer"))]))))
    merged = merge_settings(parent.chosen.config.settings, settings)
    return pack_archive(
        output, [layer], parent=(parent.archive, parent.chosen), settings=merged, name=name, created_by=created_by
    )


def merge_settings(parent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``config`` objects merged: variables and labels one by one, everything else as a whole."""
    merged = {**parent, **own}
    variables = {entry.partition("=")[0]: entry for settings in (parent, own) for entry in settings.get("Env", [])}
    labels = {**parent.get("Labels", {}), **own.get("Labels", {})}
    return merged | ({"Env": list(variables.values())} if variables else {}) | ({"Labels": labels} if labels else {})
