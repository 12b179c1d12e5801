"""``/api/tokens``: who may use the TCP port; ``/api/ssh-keys``: whose keys are let in by SSH.

Keys that the configuration lists are not among them.  Who adds one can enter every shed.
"""

from __future__ import annotations

import asyncio

from shed.api import access as api
from shed.api import endpoints
from shed.api.access import Right
from shed.api.base import NoBody, Nothing
from shed.errors import DataError, UsageError
from shed.server.app import Server, route
from shed.server.call import Call, answer
from shed.server.http import Answer, json_answer
from shed.server.ssh.enrolled import enrol, enrolled, revoke
from shed.sshkeys import PublicKey

_KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")


async def list_tokens(server: Server, call: Call[Nothing, NoBody]) -> api.TokenList:
    """List the tokens, without their secrets."""
    return api.TokenList(tokens=[answer(api.Token, token.to_wire()) for token in server.tokens.all()])


async def create_token(server: Server, call: Call[Nothing, api.CreateToken]) -> api.Token:
    """Keep a token: its secret stays with the client, which sends the hash."""
    wanted, right = call.body, Right.parse(call.body.right)
    token = await asyncio.to_thread(server.tokens.add, wanted.name, right, wanted.sha256, wanted.expires_in)
    return answer(api.Token, token.to_wire())


async def revoke_token(server: Server, call: Call[api.TokenParams, NoBody]) -> api.RevokedToken:
    """Have a token be nobody's, and hang up on whoever used it."""
    await asyncio.to_thread(server.tokens.remove, call.params.token)
    return api.RevokedToken(name=call.params.token)


async def list_keys(server: Server, call: Call[Nothing, NoBody]) -> api.SshKeyList:
    """List the keys."""
    keys = await asyncio.to_thread(enrolled, server.paths.data)
    return api.SshKeyList(keys=[answer(api.SshKey, key.to_wire()) for key in keys])


async def add_key(server: Server, call: Call[Nothing, api.AddSshKey]) -> Answer:
    """Let a key in."""
    try:
        key = PublicKey.parse(call.body.key)
    except DataError as error:
        raise UsageError(error.message, code="INVALID_SSH_KEY", hint=error.hint) from None
    if not key.kind.startswith(_KINDS) or "-cert-" in key.kind:
        raise UsageError(
            f"keys of the kind {key.kind!r} are not taken",
            code="INVALID_SSH_KEY",
            hint="make one: ssh-keygen -t ed25519",
        )
    new = await asyncio.to_thread(enrol, server.paths.data, key)
    return json_answer(api.AddedSshKey(fingerprint=key.fingerprint, added=new), status=201 if new else 200)


async def remove_key(server: Server, call: Call[api.SshKeyParams, NoBody]) -> api.SshKey:
    """Let a key in no more."""
    gone = await asyncio.to_thread(revoke, server.paths.data, call.params.fingerprint)
    return answer(api.SshKey, gone.to_wire())


ROUTES = (
    route(endpoints.LIST_TOKENS, list_tokens),
    route(endpoints.CREATE_TOKEN, create_token),
    route(endpoints.REVOKE_TOKEN, revoke_token),
    route(endpoints.LIST_SSH_KEYS, list_keys),
    route(endpoints.ADD_SSH_KEY, add_key),
    route(endpoints.REMOVE_SSH_KEY, remove_key),
)
