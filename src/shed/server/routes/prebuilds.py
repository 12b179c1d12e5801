"""``/api/prebuilds``: sheds that are made ready ahead."""

from __future__ import annotations

from shed.api import prebuilds as api
from shed.api.base import NoBody, Nothing, WorkParams
from shed.names import MAX_NAME
from shed.progress import Progress
from shed.server.app import Server, route
from shed.server.call import Call, Work, answer
from shed.server.routes.sheds import check_right
from shed.threads import in_thread


async def index(server: Server, call: Call[Nothing, NoBody]) -> api.PrebuildList:
    """List all prebuilds; what cannot be read becomes a warning."""
    prebuilds = server.manager.prebuilds
    found, warnings = await in_thread(prebuilds.store.all)
    views = [answer(api.Prebuild, await prebuilds.view(each)) for each in found]
    return api.PrebuildList(prebuilds=views, warnings=warnings)


async def show(server: Server, call: Call[api.PrebuildParams, NoBody]) -> api.Prebuild:
    """Show one prebuild."""
    prebuilds = server.manager.prebuilds
    found = await in_thread(prebuilds.store.load, call.params.prebuild)
    return answer(api.Prebuild, await prebuilds.view(found))


async def create(server: Server, call: Call[WorkParams, api.CreatePrebuild]) -> Work[api.Prebuild]:
    """Make a prebuild, as long as its client waits for it."""
    wanted = call.body
    call.action.shed = wanted.shed.name[:MAX_NAME]
    await check_right(server, call.caller, wanted.shed)

    async def work(progress: Progress) -> api.Prebuild:
        return answer(api.Prebuild, await server.manager.prebuilds.create(wanted, progress))

    return Work(work)


async def build(server: Server, call: Call[api.PrebuildWorkParams, NoBody]) -> Work[api.Prebuild]:
    """Build a prebuild anew, as long as its client waits for it."""

    async def work(progress: Progress) -> api.Prebuild:
        return answer(api.Prebuild, await server.manager.prebuilds.build(call.params.prebuild, progress))

    return Work(work)


async def remove(server: Server, call: Call[api.PrebuildParams, NoBody]) -> api.RemovedPrebuild:
    """Remove a prebuild."""
    await server.manager.prebuilds.remove(call.params.prebuild)
    return api.RemovedPrebuild(name=call.params.prebuild)


ROUTES = (
    route(api.LIST_PREBUILDS, index),
    route(api.GET_PREBUILD, show),
    route(api.CREATE_PREBUILD, create),
    route(api.BUILD_PREBUILD, build),
    route(api.REMOVE_PREBUILD, remove),
)
