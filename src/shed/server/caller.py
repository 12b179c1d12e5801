"""Who asks, and what they may do.

A client of the Unix socket is the user that the server belongs to (or root): the kernel says so.  A client of the TCP
port is whoever its token was made for: every user of the machine reaches that port, and so may a guest.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
from dataclasses import dataclass, replace

from shed.api.access import Right
from shed.errors import ForbiddenError

_PEERCRED = struct.Struct("3i")
"""struct ucred: process, user, group; unix(7)."""
_CLIENT = re.compile(r"shed/[\w.+-]{1,40} \(([a-z0-9-]{1,32})\)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    kind: str
    """``user`` for a client of the Unix socket, ``token`` for one of the TCP port, ``key`` for one of the SSH front."""
    name: str
    """Of the user or the token; of a key its fingerprint."""
    right: Right
    uid: int | None = None
    pid: int | None = None
    expires_at: float | None = None
    """When the token ends, in seconds since the epoch."""
    client: str = ""
    """What the program that asks says it is, such as ``mcp``; empty for most.  It is its own word."""

    @property
    def local(self) -> bool:
        """Whether it came over the Unix socket."""
        return self.kind == "user"

    def require(self, right: Right, what: str) -> None:
        """Raise `ForbiddenError` unless the caller has `right`; `what` begins the sentence that says so."""
        if self.right < right:
            raise ForbiddenError(
                f"{what} needs the right {right.word!r}; the token {self.name!r} has {self.right.word!r}",
                hint=f"use a token made with: shed token create NAME --right {right.word}",
            )

    def to_json(self) -> dict[str, object]:
        """Return what the audit log says of the caller."""
        known = {"kind": self.kind, "name": self.name, "uid": self.uid, "pid": self.pid, "client": self.client or None}
        return {key: value for key, value in known.items() if value is not None}

    def by(self, user_agent: str) -> Caller:
        """Return the same caller, with the client that a User-Agent header names: ``shed/VERSION (mcp)``."""
        found = _CLIENT.fullmatch(user_agent)
        return self if found is None else replace(self, client=found[1])


def of_unix_socket(client: socket.socket) -> Caller:
    """Return who is at the other end of a connection to the Unix socket.

    Raises `ForbiddenError` for another user: the socket's mode and folder keep them out, unless somebody changed those.
    """
    pid, uid, _ = _PEERCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    if uid not in (os.geteuid(), 0):
        raise ForbiddenError(
            f"this server is not user {uid}'s", hint="each user has a server of their own: leave SHED_RUNTIME_DIR alone"
        )
    return Caller("user", _user_name(uid), Right.ADMIN, uid, pid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
