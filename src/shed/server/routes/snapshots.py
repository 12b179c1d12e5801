"""``/api/snapshots``: what sheds had written at one moment."""

from __future__ import annotations

import asyncio

from shed.api import sheds
from shed.api import snapshots as api
from shed.api.base import NoBody, Nothing, WorkParams
from shed.names import MAX_NAME
from shed.progress import Progress
from shed.server.app import Server, route
from shed.server.call import Call, Work, answer


async def index(server: Server, call: Call[Nothing, NoBody]) -> api.SnapshotList:
    """List all snapshots; what cannot be read becomes a warning."""
    snapshots = server.manager.snapshots
    found, warnings = await asyncio.to_thread(snapshots.store.all)
    views = await asyncio.to_thread(lambda: [snapshots.view(each) for each in found])
    return api.SnapshotList(snapshots=[answer(api.Snapshot, view) for view in views], warnings=warnings)


async def show(server: Server, call: Call[api.SnapshotParams, NoBody]) -> api.Snapshot:
    """Show one snapshot."""
    snapshots = server.manager.snapshots
    found = await asyncio.to_thread(lambda: snapshots.view(snapshots.store.load(call.params.snapshot)))
    return answer(api.Snapshot, found)


async def create(server: Server, call: Call[WorkParams, api.CreateSnapshot]) -> Work[api.Snapshot]:
    """Make a snapshot of a stopped shed."""
    wanted = call.body
    call.action.shed = wanted.shed[:MAX_NAME]

    async def work(progress: Progress) -> api.Snapshot:
        made = await server.manager.snapshots.create(wanted.shed, wanted.name, wanted.comment, progress)
        return answer(api.Snapshot, made)

    return Work(work)


async def remove(server: Server, call: Call[api.SnapshotParams, NoBody]) -> api.RemovedSnapshot:
    """Remove a snapshot."""
    await asyncio.to_thread(server.manager.snapshots.store.remove, call.params.snapshot)
    return api.RemovedSnapshot(name=call.params.snapshot)


async def roll_back(server: Server, call: Call[sheds.ShedWorkParams, api.RollBack]) -> Work[sheds.Shed]:
    """Have a stopped shed begin with a snapshot again."""
    name, wanted, manager = call.params.name, call.body, server.manager

    async def work(progress: Progress) -> sheds.Shed:
        record = await manager.snapshots.rollback(name, wanted.snapshot, discard=wanted.discard, progress=progress)
        return answer(sheds.Shed, manager.catalog.done("rollback", record, progress))

    return Work(work)


async def reset(server: Server, call: Call[sheds.ShedWorkParams, NoBody]) -> Work[sheds.Shed]:
    """Have a stopped shed begin anew."""
    manager = server.manager

    async def work(progress: Progress) -> sheds.Shed:
        record = await manager.snapshots.reset(call.params.name, progress)
        return answer(sheds.Shed, manager.catalog.done("reset", record, progress))

    return Work(work)


ROUTES = (
    route(api.LIST_SNAPSHOTS, index),
    route(api.GET_SNAPSHOT, show),
    route(api.CREATE_SNAPSHOT, create),
    route(api.REMOVE_SNAPSHOT, remove),
    route(api.ROLL_BACK_SHED, roll_back),
    route(api.RESET_SHED, reset),
)
