"""Dialling a host of several addresses, of which some may not answer: the first one that does is taken.

As RFC 8305 has it: another address is tried when the one before has failed, or has not answered for a moment, and the
families take turns.  So a host whose IPv6 leads nowhere is reached as fast as by the programs of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from asyncio import FIRST_COMPLETED
from collections.abc import Mapping, Sequence
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
    trying: dict[asyncio.Task[None], tuple[socket.socket, Address]] = {}
    why = "it has no address"
    try:
        while waiting or trying:
            if waiting:
                address = waiting.pop(0)
                try:
                    sock, connected = _begin(address, port, buffer)
                except OSError as error:
                    why = f"{address}: {error.strerror}"
                    continue
                if connected:
                    return sock, address
                trying[asyncio.create_task(_wait(sock, address, port))] = sock, address
            done, _ = await asyncio.wait(trying, timeout=_NEXT if waiting else None, return_when=FIRST_COMPLETED)
            for task in done:
                sock, address = trying.pop(task)
                if (failure := task.exception()) is None:
                    return sock, address
                sock.close()
                why = str(failure)
    finally:
        await _end(trying)
    raise OSError(why)


def _in_turns(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with the families in turns, beginning with that of the first one."""
    if not addresses:
        return []
    first = [address for address in addresses if address.version == addresses[0].version]
    others = [address for address in addresses if address.version != addresses[0].version]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]


def _begin(address: Address, port: int, buffer: int | None) -> tuple[socket.socket, bool]:
    """Return a socket that connects, and whether it has: on this machine it has at once.  Raises `OSError`."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        error = errno.EINPROGRESS
        for _ in range(2):  # the second one says what has come of the first
            if error == errno.EINPROGRESS:
                error = sock.connect_ex((str(address), port))
        if error not in {0, errno.EINPROGRESS, errno.EALREADY}:
            raise OSError(error, os.strerror(error))
        stack.pop_all()
    return sock, not error


async def _wait(sock: socket.socket, address: Address, port: int) -> None:
    """Return when `sock` has connected.  Raises `OSError` with a sentence."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except TimeoutError:
        raise OSError(f"{address} does not answer") from None
    except OSError as error:
        raise OSError(f"{address}: {error.strerror}") from None


async def _end(trying: Mapping[asyncio.Task[None], tuple[socket.socket, Address]]) -> None:
    """Give up those that are still waited for."""
    for task in trying:
        task.cancel()
    try:
        if trying:
            await asyncio.gather(*trying, return_exceptions=True)
    finally:
        for sock, _ in trying.values():
            sock.close()
