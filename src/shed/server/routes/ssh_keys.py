"""``/api/ssh-keys``: whose keys are let in by SSH, beside those that the configuration lists.

Who adds one can enter every shed.
"""

from __future__ import annotations

import asyncio

from shed.api.access import Right
from shed.errors import DataError, UsageError
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, json_answer
from shed.server.ssh.enrolled import Enrolled, enrol, enrolled, revoke
from shed.sshkeys import PublicKey

_KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")


async def index(server: Server, request: Request) -> Reply:
    """List the keys."""
    keys = await asyncio.to_thread(enrolled, server.paths.data)
    return json_answer({"keys": [key.to_wire() for key in keys]})


async def add(server: Server, request: Request) -> Reply:
    """Let a key in."""
    line = request.json_object().get("key")
    if not isinstance(line, str) or len(line) > 16384:
        raise UsageError("key must be a public key", hint='send {"key": "ssh-ed25519 AAAA… comment"}')
    try:
        key = PublicKey.parse(line)
    except DataError as error:
        raise UsageError(error.message, code="INVALID_SSH_KEY", hint=error.hint) from None
    if not key.kind.startswith(_KINDS) or "-cert-" in key.kind:
        raise UsageError(
            f"keys of the kind {key.kind!r} are not taken",
            code="INVALID_SSH_KEY",
            hint="make one: ssh-keygen -t ed25519",
        )
    new = await asyncio.to_thread(enrol, server.paths.data, key)
    return json_answer({"fingerprint": key.fingerprint, "added": new}, status=201 if new else 200)


async def remove(server: Server, request: Request) -> Reply:
    """Let a key in no more."""
    gone: Enrolled = await asyncio.to_thread(revoke, server.paths.data, request.params["fingerprint"])
    return json_answer(gone.to_wire())


ROUTES = (
    Route("GET", "/api/ssh-keys", Right.ADMIN, index),
    Route("POST", "/api/ssh-keys", Right.ADMIN, add),
    Route("DELETE", "/api/ssh-keys/{fingerprint}", Right.ADMIN, remove),
)
