"""Dialling a host of several addresses, of which some may not answer: the first one that does is taken.

As RFC 8305 has it: another address is tried when the one before has failed, or has not answered for a moment, and the
families take turns.  So a host whose IPv6 leads nowhere is reached as fast as by the programs of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest

from shed.egress.rules.addresses import Address

MOST_DIALLED = 4
"""Addresses of a host that are tried."""
_NEXT = 0.25
"""Seconds after which another one is tried, too."""
_PATIENCE = 10.0
"""Seconds for one to answer."""


async def dial(addresses: Sequence[Address], port: int, *, buffer: int | None = None) -> tuple[socket.socket, Address]:
    """Return a connection to `port` of one of `addresses`, and which one it is.

    `buffer` is the size of its receive buffer; the kernel chooses it if there is none.  Raises `OSError` that says in
    a sentence which address was tried last, and what came of it.
    """
    waiting = _in_turns(addresses)[:MOST_DIALLED]
    trying: set[asyncio.Task[tuple[socket.socket, Address]]] = set()
    why = "it has no address"
    try:
        while waiting or trying:
            if waiting:
                trying.add(asyncio.create_task(_try(waiting.pop(0), port, buffer)))
            await asyncio.wait(trying, timeout=_NEXT if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in trying if task.done()]:
                trying.discard(task)
                if (error := task.exception()) is None:
                    return task.result()
                why = str(error)
    finally:
        for task in trying:
            task.cancel()
        for late in await asyncio.gather(*trying, return_exceptions=True):
            if not isinstance(late, BaseException):
                late[0].close()
    raise OSError(why)


def _in_turns(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with the families in turns, beginning with that of the first one."""
    if not addresses:
        return []
    first = [address for address in addresses if address.version == addresses[0].version]
    others = [address for address in addresses if address.version != addresses[0].version]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]


async def _try(address: Address, port: int, buffer: int | None) -> tuple[socket.socket, Address]:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        except TimeoutError:
            raise OSError(f"{address} does not answer") from None
        except OSError as error:
            raise OSError(f"{address}: {error.strerror}") from None
        stack.pop_all()
    return sock, address
