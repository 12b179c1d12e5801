"""Freeing space in one go: sheds stopped for long, old snapshots, images, orphans, saved VMs, logs, in this order.

The plan is made whole before anything is deleted, and with the sheds and snapshots that are to go already gone, so that
a dry run says what a real one does, and a record that cannot be read stops it before it begins.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from shed.backends.interface import StoredTemplate, Template
from shed.config.paths import Paths
from shed.errors import ConflictError, NotFoundError, ShedError
from shed.fsutil import storage_errors
from shed.images.prune import Plan
from shed.images.service import Images
from shed.progress import Progress
from shed.sheds import folders, metadata
from shed.sheds.consoles import DEFAULT_TAIL, LongConsole, cut_console, long_consoles
from shed.sheds.manager import Manager
from shed.sheds.orphans import Orphan, find_orphans, holding, remove_orphan
from shed.sheds.pins import pins
from shed.sheds.space import measure
from shed.threads import in_thread

log = logging.getLogger(__name__)
SCOPES = ("instances", "snapshots", "images", "orphans", "templates", "logs")
DEFAULT_SCOPES = frozenset({"instances", "images", "orphans", "templates"})
DEFAULT_UNTIL = 72 * 3600.0
_SERVER_LOG = "server.log"
_STAY = (_SERVER_LOG, "audit.log")
"""Logs that are written to, each of which keeps itself small."""


@dataclass(frozen=True, slots=True)
class OldShed:
    """A shed that was stopped long ago."""

    name: str
    changed: float
    """When its record was last written: what tells that it was not used since."""
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class OldSnapshot:
    """A snapshot that was made, or came here, long ago."""

    name: str
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What goes, or has gone."""

    sheds: list[OldShed]
    snapshots: list[OldSnapshot]
    images: Plan | None
    orphans: list[Orphan]
    templates: list[tuple[StoredTemplate, int]]
    """With the bytes that each takes up."""
    logs: list[tuple[Path, int]]
    """With the bytes that each takes up."""
    consoles: list[LongConsole]
    """Of the sheds that stay, and cut rather than deleted."""

    def to_wire(self) -> dict[str, Any]:
        """Return it as the API shows it: rows by scope, and what all of them take up on the disk."""
        rows: dict[str, Any] = {
            "instances": [{"name": shed.name, "size_bytes": shed.disk_bytes} for shed in self.sheds],
            "snapshots": [{"name": each.name, "size_bytes": each.disk_bytes} for each in self.snapshots],
            "images": self.images.to_wire()["deleted"] if self.images else [],
            "orphans": [{"name": str(orphan.path), "size_bytes": orphan.space.disk} for orphan in self.orphans],
            "templates": [{"name": stored.path.name, "size_bytes": size} for stored, size in self.templates],
            "logs": [{"name": str(path), "size_bytes": size} for path, size in self.logs],
            "consoles": [{"name": str(console.path), "size_bytes": console.excess} for console in self.consoles],
        }
        return {**rows, "size_bytes": sum(row["size_bytes"] for scope in rows.values() for row in scope)}


class Cleaner:
    """Cleans the data below `paths`, whose sheds `manager` has, and `images`."""

    def __init__(self, paths: Paths, manager: Manager, images: Images) -> None:
        self._paths = paths
        self._manager = manager
        self._images = images

    async def clean(
        self, scopes: frozenset[str], *, until: float, log_tail: int = DEFAULT_TAIL, dry_run: bool, progress: Progress
    ) -> dict[str, Any]:
        """Remove what has not been used for `until` seconds, or with `dry_run` only look.

        Return what it was, as the API shows it.

        The console logs of sheds keep their last `log_tail` bytes.
        Raises `ShedError` before anything is deleted when it cannot be told what is needed.
        """
        progress.phase("plan", "looking for what is not needed")
        plan = await in_thread(self._plan, scopes, until, log_tail)
        done = plan if dry_run else await self._execute(plan, log_tail, progress)
        return {**done.to_wire(), "dry_run": dry_run}

    def _plan(self, scopes: frozenset[str], until: float, log_tail: int) -> Cleaning:
        before = time.time() - until
        sheds = self._old_sheds(before) if "instances" in scopes else []
        names = {shed.name for shed in sheds}
        snapshots = self._old_snapshots(before) if "snapshots" in scopes else []
        paths = {self._paths.snapshots / each.name for each in snapshots} | {
            self._paths.instances / each for each in names
        }
        images = self._prune(paths, dry_run=True) if "images" in scopes else None
        store = self._images.store
        gone = {store.blob_path(item.digest) for item in images.garbage} if images else set()
        orphans = (
            find_orphans(self._paths, self._manager.backend.capabilities.templates, gone=gone)
            if "orphans" in scopes
            else []
        )
        templates = self._old_templates(before, {orphan.path for orphan in orphans}) if "templates" in scopes else []
        if "logs" not in scopes:
            return Cleaning(sheds, snapshots, images, orphans, templates, [], [])
        consoles = long_consoles(self._paths, log_tail, without=names)
        return Cleaning(sheds, snapshots, images, orphans, templates, self._old_logs(before), consoles)

    def _old_sheds(self, before: float) -> list[OldShed]:
        """Return the sheds that are surely stopped, and whose records are older than `before`."""
        changed = {
            name: _changed(self._paths.instances / name / metadata.METADATA) for name in folders.names(self._paths)
        }
        found = []
        for name, when in changed.items():
            try:
                if (
                    when is not None
                    and when < before
                    and self._manager.catalog.get(name)["status"] in {"stopped", "error"}
                ):
                    found.append(
                        OldShed(name, when, measure(self._paths.instances / name, self._paths.uppers / name).disk)
                    )
            except ShedError as error:
                log.warning("not cleaned: %s", error)
        return found

    def _old_snapshots(self, before: float) -> list[OldSnapshot]:
        """Return the snapshots that are here since before `before`, but those of prebuilds.

        Raises `DataError` when it cannot be told which these are.
        """
        store = self._manager.snapshots.store
        needed = {
            prebuild.snapshot
            for prebuild in map(self._manager.prebuilds.store.load, self._manager.prebuilds.store.names())
        }
        names = [name for name in store.names() if name not in needed and store.since(name) < before]
        return [OldSnapshot(name, store.space(name).disk) for name in names]

    def _remove(self, snapshot: OldSnapshot) -> bool:
        """Remove a snapshot; tell whether it was there.  Raises `StorageError`."""
        try:
            self._manager.snapshots.store.remove(snapshot.name)
        except NotFoundError:
            return False
        return True

    def _old_templates(self, before: float, orphans: set[Path]) -> list[tuple[StoredTemplate, int]]:
        """Return the saved VMs from which nothing was restored since `before`: they are made again when need be."""
        saved = self._manager.backend.capabilities.templates
        old = [each for each in (saved.stored() if saved is not None else ()) if each.used < before]
        return [(each, measure(each.path).disk) for each in sorted(old, key=_path) if each.path not in orphans]

    def _drop(self, template: StoredTemplate) -> bool:
        """Remove a saved VM, unless somebody is at work on one; tell whether it is gone.  Raises `StorageError`."""
        saved = self._manager.backend.capabilities.templates
        assert saved is not None
        with holding(template.lock) as free:
            if free:
                saved.drop(Template(template.path))
        return free

    def _old_logs(self, before: float) -> list[tuple[Path, int]]:
        logs = self._paths.logs
        kept = sorted(
            [*(path for path in logs.glob("*.log") if path.name not in _STAY), *logs.glob(f"{_SERVER_LOG}.[0-9]*")]
        )
        return [(path, measure(path).disk) for path in kept if (when := _changed(path)) is not None and when < before]

    def _prune(self, without: set[Path], *, dry_run: bool) -> Plan:
        return self._images.prune(dry_run=dry_run, pins=partial(pins, self._paths, without=without))

    async def _execute(self, plan: Cleaning, log_tail: int, progress: Progress) -> Cleaning:
        sheds = [shed for shed in plan.sheds if await self._delete(shed, progress)]
        snapshots = [each for each in plan.snapshots if await in_thread(self._remove, each)]
        images = None
        if plan.images is not None:
            progress.phase("images", "deleting images")
            images = await in_thread(self._prune, set(), dry_run=False)
        if plan.templates:
            progress.phase("templates", "deleting saved virtual machines")
        templates = [(each, size) for each, size in plan.templates if await in_thread(self._drop, each)]
        progress.phase("leftovers", "deleting leftovers")
        gone = replace(plan, sheds=sheds, snapshots=snapshots, images=images, templates=templates)
        return await in_thread(_remove_leftovers, gone, log_tail)

    async def _delete(self, shed: OldShed, progress: Progress) -> bool:
        if _changed(self._paths.instances / shed.name / metadata.METADATA) != shed.changed:
            progress.warn(f"shed {shed.name!r} was used meanwhile, and stays")
            return False
        progress.phase("instances", f"deleting shed {shed.name}")
        try:
            await self._manager.delete(shed.name, force=False, progress=Progress())
        except (ConflictError, NotFoundError) as error:
            progress.warn(error.message)
            return False
        return True


def _remove_leftovers(plan: Cleaning, log_tail: int) -> Cleaning:
    orphans = [orphan for orphan in plan.orphans if remove_orphan(orphan)]
    for path, _ in plan.logs:
        with storage_errors(path):
            path.unlink(missing_ok=True)
    cut = (replace(console, excess=cut_console(console.path, log_tail)) for console in plan.consoles)
    return replace(plan, orphans=orphans, consoles=[console for console in cut if console.excess])


def _path(template: StoredTemplate) -> Path:
    return template.path


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
