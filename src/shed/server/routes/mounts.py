"""``/api/sheds/NAME/mounts``: the folders of this machine that one shed has."""

from __future__ import annotations

from dataclasses import asdict

from shed.api import mounts as api
from shed.api.base import NoBody
from shed.api.sheds import Mount, ShedParams
from shed.server.app import Server, route
from shed.server.call import Call, answer
from shed.sheds.metadata import Record
from shed.threads import in_thread


async def show(server: Server, call: Call[ShedParams, NoBody]) -> api.ShedMounts:
    """Show the folders that a shed has."""
    return _shown(await in_thread(server.manager.catalog.record, call.params.name))


async def change(server: Server, call: Call[ShedParams, api.ChangeMounts]) -> api.ShedMounts:
    """Give a shed folders, and take others from it."""
    warnings: list[str] = []
    return _shown(await server.manager.mounts.change(call.params.name, call.body, warnings.append), warnings)


def _shown(record: Record, warnings: list[str] | None = None) -> api.ShedMounts:
    mounts = [answer(Mount, asdict(mount)) for mount in record.shared]
    return api.ShedMounts(name=record.name, mounts=mounts, warnings=warnings or [])


ROUTES = (route(api.SHED_MOUNTS, show), route(api.CHANGE_MOUNTS, change))
