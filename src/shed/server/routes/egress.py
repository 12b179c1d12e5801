"""``/api/egress`` and ``/api/sheds/{name}/egress``: what sheds may reach."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any

import msgspec

from shed.api import egress as api
from shed.api import endpoints
from shed.api.base import NoBody, Nothing
from shed.api.sheds import ShedParams
from shed.egress.rules.policy import Profile
from shed.egress.rules.profiles import BUILT_IN
from shed.errors import ConflictError
from shed.server.app import Server, route
from shed.server.call import Call, answer
from shed.sheds import nic
from shed.sheds.egress import decision


async def list_profiles(server: Server, call: Call[Nothing, NoBody]) -> api.ProfileList:
    """List all profiles."""
    found = await asyncio.to_thread(server.manager.egress.profiles.all)
    default = list(server.manager.egress.default)
    configured = server.settings.egress_profiles
    return api.ProfileList(profiles=[_shown(found[name], configured) for name in sorted(found)], default=default)


async def set_profile(server: Server, call: Call[api.ProfileParams, api.SetProfile]) -> api.Profile:
    """Keep a profile; the sheds that have it are ruled by it at once."""
    rules = [
        {key: value for key, value in msgspec.to_builtins(rule).items() if value is not None}
        for rule in call.body.rules
    ]
    document: dict[str, Any] = {"rules": rules, "log": call.body.log}
    egress = server.manager.egress
    profile = await asyncio.to_thread(egress.profiles.set, call.params.profile, document)
    await server.manager.changes.profile_changed(profile.name)
    return _shown(profile)


async def remove_profile(server: Server, call: Call[api.ProfileParams, NoBody]) -> api.RemovedProfile:
    """Remove a profile that no shed has."""
    name = call.params.profile
    if users := await asyncio.to_thread(server.manager.catalog.with_egress, name):
        raise ConflictError(
            f"the egress profile {name!r} is in use by {', '.join(users)}",
            code="EGRESS_PROFILE_IN_USE",
            hint=f"give them others first: shed egress set {users[0]} internet",
        )
    await asyncio.to_thread(server.manager.egress.profiles.remove, name)
    return api.RemovedProfile(name=name)


async def show(server: Server, call: Call[ShedParams, NoBody]) -> api.ShedEgress:
    """Show what a shed may reach."""
    egress, record = server.manager.egress, server.manager.catalog.record(call.params.name)
    problem = await asyncio.to_thread(egress.problem) if record.is_ruled else nic.WARNING
    return api.ShedEgress(
        name=record.name,
        profiles=record.egress_profiles,
        rules=await asyncio.to_thread(egress.rules, record),
        connections=0 if problem else await asyncio.to_thread(egress.connections, record.name),
        proxy="" if egress.proxy is None else str(egress.proxy),
        problem=problem,
    )


async def change(server: Server, call: Call[ShedParams, api.SetShedEgress]) -> api.ChangedEgress:
    """Rule a shed by other profiles, at once."""
    name = call.params.name
    cut = await server.manager.changes.set_profiles(name, list(call.body.profiles))
    return api.ChangedEgress(name=name, profiles=server.manager.catalog.record(name).egress_profiles, cut=cut)


async def log(server: Server, call: Call[api.EgressLogParams, NoBody]) -> api.EgressLog:
    """Show what was decided about a shed's connections."""
    name = server.manager.catalog.record(call.params.name).name
    found = await asyncio.to_thread(server.manager.egress.decisions, name, call.params.tail)
    return api.EgressLog(entries=[decision(entry) for entry in found])


def _shown(profile: Profile, configured: Container[str] = ()) -> api.Profile:
    kind = "built-in" if profile.name in BUILT_IN else "config" if profile.name in configured else "own"
    return answer(api.Profile, {"name": profile.name, "kind": kind, **profile.to_json()})


ROUTES = (
    route(endpoints.LIST_EGRESS_PROFILES, list_profiles),
    route(endpoints.SET_EGRESS_PROFILE, set_profile),
    route(endpoints.REMOVE_EGRESS_PROFILE, remove_profile),
    route(endpoints.SHED_EGRESS, show),
    route(endpoints.SET_SHED_EGRESS, change),
    route(endpoints.EGRESS_LOG, log),
)
