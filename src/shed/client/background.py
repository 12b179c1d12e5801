"""Forwarding a port beside a program that does not use asyncio: an event loop in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from shed.client.address import Address
from shed.client.forward import Forwarder, Rule


@contextlib.contextmanager
def forwarded(address: Address, shed: str, port: int, local: int) -> Iterator[int]:
    """Forward while the block lasts; yields the local port, which is `local` unless that is 0."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    forwarder = Forwarder(address, shed, start=True)
    try:
        bound = asyncio.run_coroutine_threadsafe(forwarder.listen(Rule(local, port)), loop).result()
        yield bound[0][1]
    finally:
        asyncio.run_coroutine_threadsafe(forwarder.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
