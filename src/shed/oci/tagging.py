"""What happens to a layout's ``index.json`` when tags and manifests come and go."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest
from shed.oci.manifest import REF_NAME, Index


def with_tag(index: Index, entry: Descriptor) -> Index:
    """Return `index` with `entry` as the only one of its name; the manifest the name leaves behind stays listed."""
    kept = without_tag(index, entry.annotations[REF_NAME]).manifests
    return Index((*(other for other in kept if other.digest != entry.digest or REF_NAME in other.annotations), entry))


def without_tag(index: Index, name: str) -> Index:
    """Return `index` without the name; its manifest stays listed."""
    named = {entry.digest for entry in index.manifests if entry.annotations.get(REF_NAME, name) != name}
    result: list[Descriptor] = []
    for entry in index.manifests:
        if entry.annotations.get(REF_NAME) != name:
            result.append(entry)
        elif entry.digest not in named:
            named.add(entry.digest)
            result.append(
                replace(entry, annotations={key: value for key, value in entry.annotations.items() if key != REF_NAME})
            )
    return Index(tuple(result))


def without_manifests(index: Index, digests: Collection[Digest]) -> Index:
    """Return `index` without these manifests."""
    return Index(tuple(entry for entry in index.manifests if entry.digest not in digests))
