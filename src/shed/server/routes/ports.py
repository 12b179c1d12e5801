"""``/api/sheds/NAME/ports``: the ports of one shed."""

from __future__ import annotations

import asyncio

from msgspec import structs

from shed.api import endpoints
from shed.api import ports as api
from shed.api.access import Right
from shed.api.base import NoBody
from shed.api.sheds import ShedParams
from shed.errors import BackendError, ShedError
from shed.server.app import Server, route
from shed.server.call import Call
from shed.sheds.listening import listening


async def show(server: Server, call: Call[ShedParams, NoBody]) -> api.ShedPorts:
    """Show the ports of a shed, and what listens in it."""
    shown = await _shown(server, call.params.name)
    if call.caller.right < Right.USE:
        return shown
    try:
        found = await listening(server.manager.guests, call.params.name)
    except BackendError as error:
        return structs.replace(shown, problem=error.message)
    except ShedError:  # it does not run, or is gone
        return shown
    return structs.replace(shown, listening=found)


async def change(server: Server, call: Call[ShedParams, api.ChangePorts]) -> api.ShedPorts:
    """Publish ports of a shed, or no more, and open or close ports of the host to it."""
    cut = await server.manager.changes.set_ports(call.params.name, call.body)
    return await _shown(server, call.params.name, cut=cut)


async def _shown(server: Server, name: str, *, cut: int = 0) -> api.ShedPorts:
    record = await asyncio.to_thread(server.manager.catalog.record, name)
    return api.ShedPorts(
        name=record.name,
        published=server.manager.ports.shown(record),
        host_ports=[api.HostPort(port=one.port, shed_port=one.shed_port) for one in record.open_host_ports],
        cut=cut,
    )


ROUTES = (route(endpoints.SHED_PORTS, show), route(endpoints.CHANGE_PORTS, change))
