"""What was downloaded for images on this machine, below ``~/.cache/shed``: shown and removed by `shed system`."""

from __future__ import annotations

import os
from pathlib import Path

from shed.cli.output import confirm, done
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options


def folder() -> Path:
    """Return where it is."""
    from shed.images.bootkit.build import default_cache

    return default_cache().parent


def add_to(usage: dict[str, Any]) -> None:
    """Add it to what a server says that its data takes up, as one more kind."""
    items: list[dict[str, Any]] = [{"name": path.name, **_space(path)} for path in _entries()]
    sums = {key: sum(item[key] for item in items) for key in ("size_bytes", "disk_bytes")}
    usage["kinds"]["caches"] = {"count": len(items), **sums, "items": items}
    for key, number in sums.items():
        usage["total"][key] += number


def prune(args: Any, options: Options) -> int:
    """Remove it, when the user agrees; with ``--dry-run`` only say what would go."""
    from shed.sizes import format_size

    items = [(path, _space(path)["disk_bytes"]) for path in _entries()]
    size = sum(each for _, each in items)
    details = {"caches": [{"name": str(path), "size_bytes": each} for path, each in items], "size_bytes": size}
    what = f"{folder()}, {format_size(size)}"
    if not items:
        done(options, "prune", "caches", f"nothing is in {folder()}", **details, dry_run=args.dry_run)
    elif args.dry_run:
        done(options, "prune", "caches", f"would delete {what}", **details, dry_run=True)
    elif confirm(f"Delete {what}?", options, force=args.force):
        remove(folder())
        done(options, "prune", "caches", f"deleted {what}", **details, dry_run=False)
    else:
        note("Cancelled.")
    return 0


def remove(path: Path) -> bool:
    """Remove a folder of ours with all in it; return whether it was there.  Raises `StorageError`."""
    import shutil

    from shed.fsutil import storage_errors

    if not _is_ours(path):
        return False
    with storage_errors(path):
        shutil.rmtree(path)
    return True


def _is_ours(path: Path) -> bool:
    return not path.is_symlink() and path.is_dir() and path.stat().st_uid == os.geteuid()


def _entries() -> list[Path]:
    return sorted(folder().iterdir()) if _is_ours(folder()) else []


def _space(path: Path) -> dict[str, int]:
    """Return how long the files of a folder, or one file, are together, and what they take up on the disk."""
    found = [path.lstat(), *(each.lstat() for each in path.rglob("*"))]
    return {
        "size_bytes": sum(status.st_size for status in found),
        "disk_bytes": sum(status.st_blocks for status in found) * 512,
    }
