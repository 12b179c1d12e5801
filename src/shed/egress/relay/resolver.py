"""The host's own resolver, asked for many sheds: at once only so often, and for one name only once in a while."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from shed.egress.rules.addresses import Address

KEPT = 5.0
"""Seconds for which an answer is used again: a query and the connection behind it ask once."""
MOST_KEPT = 4096
AT_ONCE = 64
"""For all sheds together; each has a limit of its own, so that nobody waits for the slow names of another."""
_NO_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5)}
_Answer = tuple[float, "asyncio.Future[list[Address]]"]


class Resolver:
    """Looks names up as programs of the host do."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "resolver")
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    async def resolve(self, name: str) -> list[Address]:
        """Return the addresses of a name in the order in which the host tries them; none when there is no such name.

        Raises `OSError` when that cannot be told.
        """
        now = time.monotonic()
        found = self._answers.get(name)
        if found is None or found[0] < now:
            self._answers.pop(name, None)
            loop = asyncio.get_running_loop()
            found = self._answers[name] = (
                now + KEPT,
                asyncio.ensure_future(loop.run_in_executor(self._threads, _ask, name)),
            )
            found[1].add_done_callback(_look_at)
            while len(self._answers) > MOST_KEPT:
                self._answers.popitem(last=False)
        return await asyncio.shield(found[1])

    def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ask(name: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_NAME:
            return []
        raise OSError(error.errno, error.strerror) from None
    addresses = [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in found]
    return list(dict.fromkeys(addresses))


def _look_at(answer: asyncio.Future[list[Address]]) -> None:
    """Have asyncio know that a failure is dealt with, should nobody wait for it any more."""
    if not answer.cancelled():
        answer.exception()
