"""``/api/secrets`` and ``/api/sheds/{name}/secrets``: what the relay puts into requests.  No answer has a value."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from shed.api import secret_endpoints as endpoints
from shed.api import secrets as api
from shed.api.base import NoBody, Nothing
from shed.api.sheds import ShedParams
from shed.egress.secrets.secretstore import StoredSecret
from shed.errors import ConflictError
from shed.server.app import Server, route
from shed.server.call import Call, answer


async def list_secrets(server: Server, call: Call[Nothing, NoBody]) -> api.SecretList:
    """List all secrets; what cannot be read becomes a warning."""
    found, warnings = await asyncio.to_thread(server.manager.terms.secrets.store.all)
    return api.SecretList(secrets=[await _shown(server, each) for each in found], warnings=warnings)


async def set_secret(server: Server, call: Call[api.SecretParams, api.SetSecret]) -> api.Secret:
    """Keep a secret; the sheds that have it use it at once."""
    document: dict[str, Any] = msgspec.to_builtins(call.body)
    if call.body.header is not None:
        name, _, text = call.body.header.partition(":")
        document["header"] = [name, text.strip()]
    stored = await asyncio.to_thread(server.manager.terms.secrets.store.set, call.params.secret, document)
    await server.manager.changes.secret_changed(stored.name)
    return await _shown(server, stored)


async def remove_secret(server: Server, call: Call[api.RemoveSecretParams, NoBody]) -> api.RemovedSecret:
    """Remove a secret that no shed has, or take it from those that do."""
    name = call.params.secret
    owners = await asyncio.to_thread(server.manager.catalog.with_secret, name)
    if owners and not call.params.force:
        raise ConflictError(
            f"the secret {name!r} is in use by {', '.join(owners)}",
            code="SECRET_IN_USE",
            hint=f"take it from them first: shed secret take {owners[0]} {name}; or add --force",
        )
    for shed in owners:
        await server.manager.changes.change_secrets(shed, [], [name])
    await asyncio.to_thread(server.manager.terms.secrets.store.remove, name)
    return api.RemovedSecret(name=name)


async def change(server: Server, call: Call[ShedParams, api.ChangeShedSecrets]) -> api.ShedSecrets:
    """Give a shed secrets, and take others from it."""
    name = call.params.name
    names, complete = await server.manager.changes.change_secrets(name, call.body.give, call.body.take)
    problems = await asyncio.to_thread(server.manager.terms.secrets.problems, server.manager.catalog.record(name))
    return api.ShedSecrets(name=name, secrets=names, complete=complete, problems=problems)


async def _shown(server: Server, stored: StoredSecret) -> api.Secret:
    owners = await asyncio.to_thread(server.manager.catalog.with_secret, stored.name)
    document = {**stored.shown(), "name": stored.name, "source": stored.source.kind, "sheds": owners}
    if stored.header is not None:
        document["header"] = ": ".join(stored.header)
    return answer(api.Secret, document)


ROUTES = (
    route(endpoints.LIST_SECRETS, list_secrets),
    route(endpoints.SET_SECRET, set_secret),
    route(endpoints.REMOVE_SECRET, remove_secret),
    route(endpoints.CHANGE_SHED_SECRETS, change),
)
