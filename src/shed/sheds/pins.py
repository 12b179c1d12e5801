"""Which images sheds and snapshots need.

Whoever deletes asks `pins`, which knows all of them or raises; `find_pins` also says which records cannot be read.
`open_images` gives the images of a server, which know who needs them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import DataError, ShedError
from shed.images.pins import Pin
from shed.images.service import Images
from shed.oci.digest import Digest, parse_digest
from shed.oci.fields import Fields, decode_object
from shed.sheds import metadata

SNAPSHOT = "snapshot.json"
_FRESH = dt.timedelta(hours=1)
"""How long a create that is not done keeps its image; none takes that long, so an older marker is of one that was cut
short.
"""


def open_images(paths: Paths, settings: Settings | None = None) -> Images:
    """Return the images of the server with these folders and settings; its sheds and snapshots need some of them."""
    return Images(paths.images, settings, partial(find_pins, paths))


def pins(paths: Paths, *, without: Collection[Path] = ()) -> list[Pin]:
    """Return what all sheds and snapshots need, but for those whose folders are `without`.

    Raises `DataError` for the first record that cannot be read.
    """
    found, errors = find_pins(paths, without=without)
    if errors:
        raise errors[0]
    return found


def find_pins(paths: Paths, *, without: Collection[Path] = ()) -> tuple[list[Pin], list[ShedError]]:
    """Return what is known of the needs of sheds and snapshots, and an error for each record that cannot be read."""
    found: list[Pin] = []
    errors: list[ShedError] = []
    for look in _looks(paths, without):
        try:
            if pin := look():
                found.append(pin)
        except ShedError as error:
            errors.append(error)
    return found, errors


def _looks(paths: Paths, without: Collection[Path]) -> Iterator[Callable[[], Pin | None]]:
    """Yield one look at each record.

    Sheds come first: a snapshot of a shed that vanishes meanwhile is there by then.
    """
    for folder in _folders(paths.instances):
        if folder not in without:
            yield lambda folder=folder: _of_shed(folder)  # type: ignore[misc]
    for folder in _folders(paths.snapshots):
        if folder not in without:
            yield lambda folder=folder: _of_snapshot(folder)  # type: ignore[misc]


def _folders(parent: Path) -> list[Path]:
    """Return what is in `parent` and is no plain file.

    A link that leads nowhere may be somebody's shed on a disk that is not mounted.
    """
    if not parent.exists():
        return []
    return sorted(path for path in parent.iterdir() if not path.name.startswith(".") and not path.is_file())


def _of_shed(folder: Path) -> Pin | None:
    name = folder.name
    marker = metadata.load_marker(folder)  # first: by the time it goes, the record is there
    hint = f"get the image again, or remove the shed: shed delete --force {name}"
    if marker is not None and _is_fresh(marker, folder):
        return Pin(
            _digest(marker.digest, folder / metadata.MARKER, hint),
            f"shed {name!r}, which is being created",
            hint,
            strict=True,
        )
    if marker is not None and not (folder / metadata.METADATA).exists():
        return None  # the server sweeps what is left of it
    try:
        digest = metadata.pinned(folder)
    except ShedError:
        if not folder.exists() and not folder.is_symlink():  # deleted while we looked
            return None
        raise
    return Pin(_digest(digest, folder / metadata.METADATA, hint), f"shed {name!r}", hint, strict=True)


def _is_fresh(marker: metadata.Marker, folder: Path) -> bool:
    try:
        created = dt.datetime.fromisoformat(marker.created_at)
        return dt.datetime.now(dt.UTC) - created < _FRESH
    except (ValueError, TypeError):
        raise metadata.DamagedError(
            f"{folder / metadata.MARKER}: created_at is not a time",
            hint=f"remove the shed: shed delete --force {folder.name}",
        ) from None


def _of_snapshot(folder: Path) -> Pin | None:
    path = folder / SNAPSHOT
    what = f"snapshot record {path}"
    hint = f"repair the file, or remove the snapshot: shed snapshot rm {folder.name}"
    try:
        digest = Fields(decode_object(path.read_bytes(), what), what).text("lower_digest")
    except OSError as error:
        if not folder.exists() and not folder.is_symlink():
            return None
        raise DataError(f"{what} cannot be read: {error.strerror}", hint=hint) from error
    except DataError as error:
        raise DataError(error.message, hint=hint) from None
    return Pin(_digest(digest, path, hint), f"snapshot {folder.name!r}", hint, strict=True)


def _digest(text: str, path: Path, hint: str) -> Digest:
    try:
        return parse_digest(text)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", hint=hint) from None
