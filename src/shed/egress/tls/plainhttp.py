"""Plain HTTP through the host's proxy: request by request, in the form that a proxy expects (RFC 9112, section 3.2.2).

Proxies refuse CONNECT to port 80, and apt asks there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import h11

from shed.egress.orders import Opening, Orders
from shed.egress.relay.flow import Flow
from shed.egress.relay.refusal import METHODS
from shed.egress.relay.throughproxy import HTTP, ProxyError, Resolve, reach
from shed.egress.rules.policy import normal_name
from shed.egress.tls.opened import Opened, Unreachable
from shed.egress.tls.request import Ready, Refused, framing, is_framed_twice, passed_on

Tell = Callable[[dict[str, object]], None]
_SILENCE = 1.0
"""Seconds after which a client is taken to wait for the server to speak first, as none of HTTP does."""
_PEEK = 16


class Plain:
    """A side of a connection whose bytes are read by this process, without TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent = self.received = 0
        """Bytes that came from this side, and that went to it."""

    async def receive(self) -> bytes:
        """Return the next bytes, nothing at the end.  Raises `OSError`."""
        data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        self.sent += len(data)
        return data

    async def send(self, data: bytes) -> None:
        """Send all of `data`.  Raises `OSError`."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)
        self.received += len(data)

    async def finish(self) -> None:
        """Say that nothing follows.  Raises `OSError`."""
        self.sock.shutdown(socket.SHUT_WR)


async def serve(flow: Flow, resolve: Resolve, shed: str, orders: Callable[[], Orders], tell: Tell) -> bool:
    """Pass on the requests of `flow`, one by one, to its proxy; say whether that was done: it may not be HTTP.

    `tell` is told of each request of the shed called `shed`.  Raises `OSError` when the connection breaks.
    """
    proxy = flow.proxy
    assert proxy is not None
    if not (await _first(flow.client)).startswith(METHODS):
        return False
    inside, hint = Plain(flow.client), f"on the host, see: shed egress log {shed}"
    flow.pump, flow.error = inside, None

    async def reached() -> Plain:
        try:
            flow.outside = await reach(proxy, resolve)
        except ProxyError as error:
            flow.error = str(error)
            raise Unreachable(str(error)) from None
        return Plain(flow.outside)

    def holds() -> tuple[Orders, Opening] | None:
        return None if flow.cut else (orders(), Opening((), None))

    def prepared(request: h11.Request, name: str, port: int, _orders: Orders, _opening: Opening) -> Ready:
        return prepare(request, name, port, proxy.authorization)

    def told(request: dict[str, object]) -> None:
        tell({**flow.record(shed), **request})

    with contextlib.suppress(h11.ProtocolError):
        await Opened(flow.host, flow.port, inside, reached, holds, told, hint, prepared).run()
    return True


async def _first(client: socket.socket) -> bytes:
    """Return what a client says first, without taking it; nothing when it waits."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(client, ready.set)
    try:
        async with asyncio.timeout(_SILENCE):
            await ready.wait()
        return client.recv(_PEEK, socket.MSG_PEEK)
    except (TimeoutError, BlockingIOError):
        return b""
    finally:
        loop.remove_reader(client)


def prepare(request: h11.Request, name: str, port: int, authorization: bytes) -> Ready:
    """Return `request`, which came by a connection to `port` of `name`, as a proxy expects it.  Raises `Refused`."""
    target = request.target.decode("ascii")
    authority = name if port == HTTP else f"{name}:{port}"
    if request.method in {b"CONNECT", b"TRACE"} or not target.startswith("/"):
        raise Refused(400, "through the host's proxy, only requests for paths are passed on")
    if is_framed_twice(request.headers):
        raise Refused(400, "it has a Content-Length and a Transfer-Encoding")
    for header, value in request.headers:
        if header == b"host" and not _is_host(value, name, port):
            raise Refused(403, f"its header Host does not name {authority}, to which the shed is connected")
    headers = [header for header in passed_on(request.headers.raw_items()) if header[0].lower() != b"host"]
    headers = [(b"Host", authority.encode()), *headers, *framing(request.headers)]
    if authorization:
        headers.append((b"Proxy-Authorization", authorization))
    head = h11.Request(method=request.method, target=f"http://{authority}{target}", headers=headers)
    return Ready(head, (), frozenset(), ())


def _is_host(value: bytes, name: str, port: int) -> bool:
    host, colon, digits = value.decode("latin-1").partition(":")
    if (digits or str(HTTP)) != str(port) or bool(digits) is not bool(colon):
        return False
    try:
        return host == name or normal_name(host) == name
    except ValueError:
        return False
