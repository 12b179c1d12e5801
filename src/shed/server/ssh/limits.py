"""How much of the SSH front one client, one peer and all together may take up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncssh import SSHServerConnection

LOGIN_SECONDS = 60.0
"""From a connection's start until its client must be known."""
MOST_TRIES = 6
"""Refused keys of one connection; then it is hung up on.  A first question for what is possible, without a key, is
free.
"""
KEEPALIVE_SECONDS = 30.0
"""Of silence, after which a client is asked whether it is still there."""
KEEPALIVE_QUESTIONS = 3
"""Unanswered ones after which it is taken for gone."""
MOST_CHANNELS = 256
"""Sessions and forwarded connections of one connection at the same time."""
MOST_LISTENERS = 32
"""Ports and sockets of the guest that one connection listens on (``-R``, ``-A``)."""
MOST_ARRIVING = 64
"""Connections from the guest, of one client, that are being carried; more wait in the guest."""
AGENT_BURST, AGENT_PER_SECOND = 100, 10
"""What a shed may ask the agent of one client at once, and how much more in each second; the rest waits."""
MOST_TOLD = 16
"""Refusals of its agent that one client is told of."""
DROP_FROM, DROP_ALL = 100, 200
"""Connections of one peer whose client is not known yet: from here on some new ones are dropped at random, from there
on all.
"""
_FIRST_DROP = 0.3
"""The part of them that is dropped at `DROP_FROM`; it grows evenly to all."""
MOST_STRANGERS = 400
"""Connections whose client is not known yet, in all: for another one the oldest of the peer that has most makes way."""
MOST_OF_PEER, MOST_CONNECTIONS = 512, 1024
"""Connections of one peer, and in all."""


class Crowd:
    """The connections that are open; `chance` returns a number from 0 to 1."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._strangers: dict[SSHServerConnection, str] = {}
        self._known: dict[SSHServerConnection, str] = {}

    def room(self, peer: str) -> bool:
        """Say whether another connection of `peer` may come; another peer's oldest may have to leave for it."""
        waiting = Counter(self._strangers.values())
        if waiting[peer] + sum(other == peer for other in self._known.values()) >= MOST_OF_PEER or self._dropped(
            waiting[peer]
        ):
            return False
        if len(self._strangers) >= MOST_STRANGERS or len(self._strangers) + len(self._known) >= MOST_CONNECTIONS:
            (most, _), *_ = waiting.most_common(1) or [(peer, 0)]
            if most == peer:
                return False
            oldest = next(other for other, whose in self._strangers.items() if whose == most)
            self.leave(oldest)
            oldest.abort()
        return True

    def enter(self, connection: SSHServerConnection, peer: str) -> None:
        """Count a new connection, for which there is room."""
        self._strangers[connection] = peer

    def known(self, connection: SSHServerConnection) -> None:
        """The client of a connection is known now."""
        if connection in self._strangers:
            self._known[connection] = self._strangers.pop(connection)

    def leave(self, connection: SSHServerConnection) -> None:
        """A connection is closed."""
        self._strangers.pop(connection, None)
        self._known.pop(connection, None)

    def everybody(self) -> list[SSHServerConnection]:
        """Return all connections."""
        return [*self._strangers, *self._known]

    def _dropped(self, waiting: int) -> bool:
        if waiting < DROP_FROM:
            return False
        part = _FIRST_DROP + (1 - _FIRST_DROP) * (waiting - DROP_FROM) / (DROP_ALL - DROP_FROM)
        return waiting >= DROP_ALL or self._chance() < part
