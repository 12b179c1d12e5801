"""The boot kit in use: which three blobs of the store it is, and what they were made from.

``{images}/kit.json`` names the kit that new images are minted with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shed.errors import DataError, NotFoundError
from shed.oci.digest import Digest, parse_digest, short
from shed.oci.store import LayoutStore

KIT_FILE = "kit.json"
_HINT = "make it: shed image bootkit build"


@dataclass(frozen=True, slots=True)
class Kit:
    """Three blobs that boot together, by digest."""

    kernel: Digest
    initrd: Digest
    runtime: Digest
    record: Mapping[str, Any]
    """What they are: ``architecture``, ``kernel_release``, ``erofs_algorithms`` that the kernel reads, ``modules``,
    ``packages`` (name, version, sha256, whether it is the locked one), ``writer`` of the runtime's EROFS.
    """

    @property
    def erofs_algorithms(self) -> list[str]:
        """EROFS compression algorithms that the kernel reads, for example ``lz4``."""
        return list(self.record["erofs_algorithms"])


def load_kit(store: LayoutStore) -> Kit:
    """Return the kit of `store`.

    Raises `NotFoundError` (NO_BOOT_KIT) when there is none or a blob of it is gone, `DataError`.
    """
    kit = read_kit(store)
    if kit is None:
        raise NotFoundError("there is no boot kit yet", code="NO_BOOT_KIT", hint=_HINT)
    for name in ("kernel", "initrd", "runtime"):
        digest = getattr(kit, name)
        if not store.has(digest):
            raise NotFoundError(
                f"the {name} of the boot kit, {short(digest)}, is not in the store", code="NO_BOOT_KIT", hint=_HINT
            )
    return kit


def read_kit(store: LayoutStore) -> Kit | None:
    """Return what `store` says its kit is, whether or not its blobs are here; None when it says nothing.

    Raises `DataError`.
    """
    path = store.root / KIT_FILE
    try:
        fields = json.loads(path.read_text())
        kit = Kit(
            parse_digest(fields["kernel"]),
            parse_digest(fields["initrd"]),
            parse_digest(fields["runtime"]),
            dict(fields["record"]),
        )
        _check_record(kit.record)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, DataError) as error:
        raise DataError(f"{path} is damaged: {error}", hint=_HINT) from None
    return kit


def _check_record(record: Mapping[str, Any]) -> None:
    """Check what others rely on.  Raises `DataError`, `KeyError`."""
    if not all(isinstance(record[name], str) for name in ("architecture", "kernel_release")):
        raise DataError("architecture and kernel_release are not names")
    algorithms = record["erofs_algorithms"]
    if not isinstance(algorithms, list) or not all(isinstance(name, str) for name in algorithms):
        raise DataError("erofs_algorithms is not a list of names")
