"""Opens TLS for connections of one shed to hosts for which it has secrets, or whose requests are limited."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable

import h11

from shed.egress.orders import Opening, Orders
from shed.egress.relay.flow import Flow
from shed.egress.relay.pace import Pace
from shed.egress.relay.refusal import METHODS, TLS_HANDSHAKE
from shed.egress.rules.policy import Verdict
from shed.egress.tls.contexts import Leaves, client_context
from shed.egress.tls.opened import Opened, Unreachable
from shed.egress.tls.tlsstream import TlsStream
from shed.errors import ShedError

_SILENCE = 1.0
"""Seconds after which a client may be one that waits for the server to speak first, which none of TLS does."""
_SPEAKS = 30.0
"""Seconds until one of them has spoken."""
_HANDSHAKE = 10.0
"""Seconds until both sides have agreed on keys."""
_PEEK = 64 * 1024
HANDSHAKES, PER_SECOND = 500, 100
"""Of one shed, with it and with its hosts: at once, and how many more in each second.  Each takes more than a
millisecond of a processor that all sheds share; the others wait for their turn.
"""
Dial = Callable[[], Awaitable[socket.socket | None]]
"""Returns a connection to a flow's host, or sets the flow's error."""


class Opener:
    """Opens TLS for connections of the shed `name`.

    `orders` says what holds now.  `tell` is told of each request.
    """

    def __init__(self, name: str, orders: Callable[[], Orders], tell: Callable[[dict[str, object]], None]) -> None:
        self._name, self._orders, self._tell = name, orders, tell
        self._leaves: Leaves | None = None
        self._pace = Pace(HANDSHAKES, PER_SECOND)

    async def serve(self, flow: Flow, opening: Opening, dial: Dial) -> bool:
        """Serve `flow`, and say whether that was done; if not, it may be passed on as it is.

        A flow that is refused has a verdict that says so.
        """
        first = await _peek(flow, dial)
        if first[:1] != bytes((TLS_HANDSHAKE,)):
            return self._refuse_plain(flow, opening, first)
        orders = self._orders()
        if orders.authority is None:
            flow.verdict = Verdict(False, "TLS would have to be opened, and the shed has no certificate authority")
            return True
        assert flow.name is not None
        try:
            inside = TlsStream(flow.client, self._context(orders, flow.name))
        except ShedError as error:
            flow.verdict = Verdict(False, str(error))
            return True
        flow.pump = inside
        await self._pace.turn()
        try:
            async with asyncio.timeout(_HANDSHAKE):
                await inside.handshake()
        except OSError as error:
            _explain(flow, error)
            return True
        with contextlib.suppress(h11.ProtocolError):
            await self._opened(flow, inside, dial).run()
        return True

    def _context(self, orders: Orders, name: str) -> ssl.SSLContext:
        assert orders.authority is not None
        if self._leaves is None or self._leaves.authority != orders.authority:
            self._leaves = Leaves(orders.authority)
        return self._leaves.context(name, orders.leaf(name))

    def _refuse_plain(self, flow: Flow, opening: Opening, first: bytes) -> bool:
        """Refuse what is not TLS, if that is not to be passed on: nobody would rule it."""
        if opening.limits is not None:
            flow.verdict = Verdict(False, "rules with methods and paths are for HTTPS alone")
            return True
        placeholders = [secret.placeholder.encode() for secret in self._orders().secrets]
        if first.startswith(METHODS) and any(placeholder in first for placeholder in placeholders):
            flow.verdict = Verdict(False, "a secret is never sent without TLS: use https://")
            return True
        return False

    def _opened(self, flow: Flow, inside: TlsStream, dial: Dial) -> Opened:
        assert flow.name is not None
        name = flow.name

        def holds() -> tuple[Orders, Opening] | None:
            orders = self._orders()
            opening = orders.opening(name, flow.port)
            return None if opening is None or flow.cut else (orders, opening)

        async def connect() -> TlsStream:
            sock = await dial()
            if sock is None:
                raise Unreachable(f"{name} cannot be reached: {flow.error or 'it has no address'}")
            try:
                flow.outside = sock
                await self._pace.turn()
                return await _shake(sock, self._orders().extra_authorities, name)
            except BaseException:
                sock.close()
                raise

        def tell(told: dict[str, object]) -> None:
            self._tell({"shed": self._name, "name": name, "address": str(flow.address), "port": flow.port, **told})

        return Opened(name, flow.port, inside, connect, holds, tell, f"on the host, see: shed egress log {self._name}")


async def _peek(flow: Flow, dial: Dial) -> bytes:
    """Return what a client has said first, without taking it; nothing when it is the server who speaks first.

    Raises `TimeoutError` when neither does.
    """
    try:
        async with asyncio.timeout(_SILENCE):
            await _readable(flow.client)
    except TimeoutError:
        if (server := await dial()) is None:
            raise
        with server:
            await _readable(flow.client, server)
    try:
        return flow.client.recv(_PEEK, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


async def _readable(*sockets: socket.socket) -> None:
    """Wait until one of `sockets` has something to read.  Raises `TimeoutError`."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        for sock in sockets:
            loop.add_reader(sock, ready.set)
        async with asyncio.timeout(_SPEAKS):
            await ready.wait()
    finally:
        for sock in sockets:
            loop.remove_reader(sock)


async def _shake(sock: socket.socket, extra_authorities: tuple[str, ...], name: str) -> TlsStream:
    """Return TLS with the host called `name`.  Raises `Unreachable` when it is not that host, or does not answer."""
    try:
        stream = TlsStream(sock, client_context(extra_authorities), name)
        async with asyncio.timeout(_HANDSHAKE):
            await stream.handshake()
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"the certificate of {name} is not valid: {error.verify_message}") from None
    except TimeoutError:
        raise Unreachable(f"{name} does not answer") from None
    except OSError as error:
        words = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise Unreachable(f"TLS with {name} fails: {words}") from None
    return stream


def _explain(flow: Flow, error: OSError) -> None:
    """Have `flow` say why no keys were agreed on with the shed."""
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    if reason == "CALLBACK_FAILED":
        flow.verdict = Verdict(False, "the client asks for another host (SNI) than it is connected to")
    elif isinstance(error, TimeoutError):
        flow.error = "the shed does not finish the TLS handshake"
    else:
        flow.error = f"TLS with the shed fails: {reason or error.strerror or 'it has left'}"
