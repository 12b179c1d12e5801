"""``/api/sheds/NAME/awake``: what keeps a shed awake that is idle."""

from __future__ import annotations

from dataclasses import asdict

from shed.api import life
from shed.api.base import NoBody
from shed.api.sheds import Lease, ShedParams
from shed.server.app import Server, route
from shed.server.call import Call, answer


async def keep(server: Server, call: Call[ShedParams, life.KeepAwake]) -> Lease:
    """Keep a shed awake."""
    lease = await server.manager.awake.keep(call.params.name, call.body.seconds, call.body.reason)
    return answer(Lease, asdict(lease))


async def release(server: Server, call: Call[life.ReleaseParams, NoBody]) -> life.Released:
    """Keep it awake no more."""
    name = call.params.name
    gone = await server.manager.awake.release(name, call.params.lease)
    return life.Released(name=name, leases=[answer(Lease, asdict(lease)) for lease in gone])


ROUTES = (route(life.KEEP_AWAKE, keep), route(life.RELEASE, release))
