"""``/api/snapshots``: what sheds had written at one moment."""

from __future__ import annotations

import asyncio
from functools import partial

from shed.api import sheds
from shed.api import snapshots as api
from shed.api.base import NoBody, Nothing, WorkParams
from shed.names import MAX_NAME
from shed.progress import Progress
from shed.server.app import Server, route
from shed.server.call import Call, Work, answer
from shed.sheds.artifact.push import push_snapshot
from shed.sheds.artifact.receiving import pull_snapshot
from shed.sheds.forks import names_of
from shed.threads import stoppable


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
    """Make a snapshot of a shed."""
    wanted = call.body
    call.action.shed = wanted.shed[:MAX_NAME]

    async def work(progress: Progress) -> api.Snapshot:
        made = await server.manager.snapshots.create(
            wanted.shed, wanted.name, wanted.comment, progress, disk_only=wanted.disk_only
        )
        return answer(api.Snapshot, made)

    return Work(work)


async def remove(server: Server, call: Call[api.SnapshotParams, NoBody]) -> api.RemovedSnapshot:
    """Remove a snapshot."""
    await asyncio.to_thread(server.manager.snapshots.store.remove, call.params.snapshot)
    return api.RemovedSnapshot(name=call.params.snapshot)


async def push(server: Server, call: Call[api.SnapshotWorkParams, api.PushSnapshot]) -> Work[api.PushedSnapshot]:
    """Push a snapshot to a registry."""
    name, wanted, store = call.params.snapshot, call.body, server.manager.snapshots.store

    async def work(progress: Progress) -> api.PushedSnapshot:
        push_it = partial(
            push_snapshot,
            store,
            name,
            wanted.destination,
            server.settings.limits,
            memory=wanted.with_memory,
            insecure=wanted.insecure,
            progress=progress,
        )
        return answer(api.PushedSnapshot, await stoppable(lambda stop: push_it(stop=stop), long=True))

    return Work(work)


async def pull(server: Server, call: Call[WorkParams, api.PullSnapshot]) -> Work[api.PulledSnapshot]:
    """Pull a snapshot from a registry, as long as its client waits for it."""
    wanted, snapshots = call.body, server.manager.snapshots

    async def work(progress: Progress) -> api.PulledSnapshot:
        pull_it = partial(
            pull_snapshot,
            snapshots.store,
            wanted.reference,
            wanted.name,
            server.settings.limits,
            memory=wanted.with_memory,
            insecure=wanted.insecure,
            progress=progress,
        )
        pulled = await stoppable(lambda stop: pull_it(stop=stop), progress.abandoned, long=True)
        view = await asyncio.to_thread(snapshots.view, pulled.snapshot)
        return api.PulledSnapshot(
            snapshot=answer(api.Snapshot, view),
            fetched=pulled.fetched,
            fetched_bytes=pulled.fetched_bytes,
            timings=pulled.timings,
        )

    return Work(work)


async def roll_back(server: Server, call: Call[sheds.ShedWorkParams, api.RollBack]) -> Work[sheds.Shed]:
    """Have a shed go back to a snapshot."""
    name, wanted, manager = call.params.name, call.body, server.manager

    async def work(progress: Progress) -> sheds.Shed:
        record, way = await manager.snapshots.rollback(
            name, wanted.snapshot, discard=wanted.discard, disk_only=wanted.disk_only, progress=progress
        )
        return answer(sheds.Shed, manager.catalog.done("rollback", record, progress, way))

    return Work(work)


async def fork(server: Server, call: Call[sheds.ShedWorkParams, api.ForkShed]) -> Work[api.Forks]:
    """Make sheds that go on from what a running one is now."""
    name, names, manager = call.params.name, names_of(call.body.new_name, call.body.count), server.manager

    async def work(progress: Progress) -> api.Forks:
        found = []
        for each in await manager.forks.fork(name, names, progress):
            if each.error is None:
                found.append(api.Fork(name=each.name, shed=answer(sheds.Shed, each.shed or {})))
            else:
                error = each.error
                found.append(
                    api.Fork(name=each.name, code=error.code, message=error.message, hint=error.next_step or "")
                )
        return api.Forks(forks=found)

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
    route(api.PUSH_SNAPSHOT, push),
    route(api.PULL_SNAPSHOT, pull),
    route(api.ROLL_BACK_SHED, roll_back),
    route(api.RESET_SHED, reset),
    route(api.FORK_SHED, fork),
)
