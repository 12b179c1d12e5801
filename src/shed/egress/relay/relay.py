"""The only way out of one shed's network namespace: it takes connections, asks the rules, and dials from the host.

Nothing that the shed says is trusted: the destination comes from the kernel, the name from the address that was made up
for it.  The address that was checked is the one that is dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shed.egress.orders import Orders
from shed.egress.relay.decide import IsOwn, Resolve, decide
from shed.egress.relay.dial import dial
from shed.egress.relay.flow import Flow
from shed.egress.relay.names import Names
from shed.egress.relay.nameservice import NameService
from shed.egress.relay.pace import Pace
from shed.egress.relay.pump import Pipes, Pump, is_gone
from shed.egress.relay.refusal import refuse
from shed.egress.relay.remedy import remedy
from shed.egress.relay.throughproxy import HTTP, ProxyError, connect
from shed.egress.rules.addresses import MADE_UP, Address
from shed.egress.rules.hostports import HOST
from shed.egress.rules.policy import Verdict

if TYPE_CHECKING:
    from shed.egress.tls.opening import Opener

log = logging.getLogger(__name__)
MOST_FLOWS = 1024
"""Connections that one shed has at once; more wait in the kernel's queue."""
_SO_ORIGINAL_DST = 80
"""linux/netfilter_ipv4.h."""
_SOCKADDR_IN = struct.Struct("!HH4s8x")
_FREE, _BUFFER = 64, 128 << 10
"""Connections of a shed for which the kernel chooses the size of the receive buffer (up to 6 MB), and its bytes for
others: what a shed does not read lies there, and the host has one limit for all TCP.
"""
_LOOK_UP = 10.0
_MOST_LOOKUPS = 8
"""Names that are looked up at once for one shed: others get their turn, too."""
_RESET = struct.pack("ii", 1, 0)
_PAUSE = 0.05
"""Seconds after which accepting is tried again when the process has no descriptor left."""
_KEEPALIVE = 120
"""Seconds of silence after which the kernel asks whether the other side is still there."""

Record = Callable[[dict[str, object]], None]


@dataclass(frozen=True, slots=True)
class Outside:
    """What a relay needs of the host."""

    resolve: Resolve
    is_own: IsOwn
    record: Record
    """Writes a line of the log."""
    began: Record
    """Tells those who watch that a connection which is allowed begins."""
    pipes: Pipes


class Relay:
    """The relay of the shed `name`."""

    def __init__(
        self, name: str, orders: Orders, outside: Outside, known_names: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.orders = orders
        self._hint = f"on the host, see: shed egress log {name}"
        self.flows: set[Flow] = set()
        self._outside = outside
        self.names = Names(known_names)
        self._dns = NameService(self.names, self._exists)
        self._sockets: tuple[socket.socket, ...] = ()
        self._tasks: set[asyncio.Future[None]] = set()
        self._accepting: tuple[asyncio.Future[None], ...] = ()
        self._slots = asyncio.Semaphore(MOST_FLOWS)
        self._lookups = asyncio.Semaphore(_MOST_LOOKUPS)
        self._told = False
        self._opener: Opener | None = None

    def start(self, listener: socket.socket, udp: socket.socket, dns_listener: socket.socket) -> None:
        """Serve what comes by these sockets, which belong to that namespace, from now on."""
        for sock in (listener, udp, dns_listener):
            sock.setblocking(False)
        self._sockets = (listener, udp, dns_listener)
        self._dns.start(udp)
        self._accepting = (
            self._spawn(self._accept(listener, self._serve)),
            self._spawn(self._accept(dns_listener, self._serve_dns)),
        )

    async def retire(self) -> None:
        """Take no more connections; those that there are go on."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._dns.close()
        for sock in self._sockets:
            sock.close()

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._dns.close()
        for sock in self._sockets:
            sock.close()

    def set_orders(self, orders: Orders) -> int:
        """Obey `orders` from now on; cut what they do not allow, and return how many connections that were."""
        before, self.orders = self.orders, orders
        cut = 0
        for flow in list(self.flows):
            verdict = flow.still_allowed(orders)
            if verdict.allowed and orders.opening(flow.name, flow.port) != before.opening(flow.name, flow.port):
                verdict = Verdict(False, "what holds for requests to its host has changed")
            if flow.verdict.allowed and not verdict.allowed:
                flow.cut, flow.verdict = True, verdict
                for sock in (flow.client, flow.outside):
                    if sock is not None:
                        _reset(sock)
                cut += 1
        return cut

    async def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], Awaitable[None]]) -> None:
        loop, pace = asyncio.get_running_loop(), Pace()
        while True:
            await pace.turn()
            await self._slots.acquire()
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._slots.release()
                if not self._told:
                    self._told = True  # once: a shed can have this happen twenty times a second
                    log.warning("shed %s: a connection cannot be taken: %s", self.name, error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            except BaseException:
                self._slots.release()
                raise
            self._spawn(self._guarded(client, serve))

    async def _guarded(self, client: socket.socket, serve: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            client.setblocking(False)
            await serve(client)
        except OSError as error:
            if not is_gone(error):
                log.info("shed %s: %s", self.name, error)
        except Exception:
            log.exception("shed %s: a connection ended by a bug", self.name)
        finally:
            client.close()
            self._slots.release()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, client: socket.socket) -> None:
        """Serve one connection to its end."""
        _, port, packed = _SOCKADDR_IN.unpack(client.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size))
        address = ipaddress.IPv4Address(packed)
        name = self.names.name_of(address) if address in MADE_UP else None
        flow = Flow(name, address, port, client)
        self.flows.add(flow)
        try:
            addresses = await decide(flow, self.orders, self._resolve, self._outside.is_own)
            opened = flow.verdict.allowed and await self._open(flow, addresses)
            if not flow.verdict.allowed:
                self._outside.record(flow.record(self.name))
                await refuse(client, *self._explained(flow))
                return
            if not opened and not (flow.port == HTTP and await self._serve_plain(flow)):
                await self._connect(flow, addresses)
            if flow.error is not None or flow.cut or self.orders.policy.log_all:
                self._outside.record(flow.record(self.name))
        finally:
            self.flows.discard(flow)

    def _explained(self, flow: Flow) -> tuple[str, str]:
        """Return the sentence and the hint for a client that is refused."""
        sentence = f"shed: a connection to {flow.target} is not allowed: {flow.verdict.reason}"
        return sentence, "\n".join(filter(None, (remedy(self.name, flow, self.orders), self._hint)))

    async def _open(self, flow: Flow, addresses: list[Address]) -> bool:
        """Serve `flow` if its requests are looked at, and say whether that was done."""
        if (opening := self.orders.opening(flow.name, flow.port)) is None:
            return False
        if self._opener is None:
            from shed.egress.tls.opening import Opener  # noqa: PLC0415  most processes never need what it imports

            self._opener = Opener(self.name, lambda: self.orders, self._record_request)
        _set_options(flow.client)
        try:
            return await self._opener.serve(flow, opening, lambda: self._dial(flow, addresses))
        except OSError:
            _reset(flow.client)
            return True

    def _record_request(self, told: dict[str, object]) -> None:
        if not told["allowed"] or "error" in told or told.get("secrets") or self.orders.policy.log_all:
            self._outside.record(told)

    async def _connect(self, flow: Flow, addresses: list[Address]) -> None:
        """Dial the first of `addresses` that answers, and copy until the end."""
        outside = await self._dial(flow, addresses)
        if outside is None:
            if flow.cut or not await self._serve_plain(flow):  # which a proxy may take that refuses CONNECT there
                _reset(flow.client)
            return
        with outside:
            _set_options(flow.client)
            flow.pump = Pump(flow.client, outside, self._outside.pipes)
            try:
                if flow.cut:
                    _reset(flow.client)
                else:
                    await flow.pump.run()
            except OSError:
                _reset(flow.client)
                _reset(outside)

    async def _serve_plain(self, flow: Flow) -> bool:
        """Serve `flow` if it is plain HTTP and goes through a proxy, and say whether that was done."""
        if flow.proxy is None:
            return False
        from shed.egress.tls import plainhttp  # noqa: PLC0415  most processes never need what it imports

        try:
            orders, tell = lambda: self.orders, self._record_request
            return await plainhttp.serve(flow, self._outside.resolve, self.name, orders, tell)
        except OSError:
            _reset(flow.client)
            return True

    async def _dial(self, flow: Flow, addresses: list[Address]) -> socket.socket | None:
        """Return a connection to the other side; None with the error, or the verdict, of `flow` set to why not."""
        if flow.proxy is not None:
            try:
                outside = await connect(flow.proxy, self._outside.resolve, flow.host, flow.port)
            except ProxyError as error:
                flow.error = str(error)
                return None
            return self._still(flow, outside)
        port = flow.port if flow.host_port is None else flow.host_port.port
        try:
            outside, address = await dial(addresses, port, buffer=_BUFFER if len(self.flows) > _FREE else None)
        except OSError as error:
            flow.error = flow.error or str(error)
            return None
        flow.address, flow.error = address, None
        return self._still(flow, outside)

    def _still(self, flow: Flow, outside: socket.socket) -> socket.socket | None:
        """Return `outside`, unless new rules came while it was dialled."""
        if not (verdict := flow.still_allowed(self.orders)).allowed:
            flow.cut, flow.verdict = True, verdict
            outside.close()
            return None
        _set_options(outside)
        self._outside.began(flow.record(self.name))
        return outside

    async def _serve_dns(self, client: socket.socket) -> None:
        """Answer queries by TCP, each behind its length (RFC 1035, section 4.2.2)."""
        loop = asyncio.get_running_loop()
        kept = b""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(_LOOK_UP):
                    while len(kept) < 2 or len(kept) < 2 + int.from_bytes(kept[:2], "big"):
                        if not (data := await loop.sock_recv(client, 65537)):
                            return
                        kept += data
                size = int.from_bytes(kept[:2], "big")
                answer = await self._dns.answer(kept[2 : 2 + size])
                kept = kept[2 + size :]
                if answer is None:
                    return
                async with asyncio.timeout(_LOOK_UP):
                    await loop.sock_sendall(client, len(answer).to_bytes(2, "big") + answer)

    async def _exists(self, name: str) -> bool:
        """Say whether to answer with an address: not when a rule allows the name and the host knows of none."""
        proxy = self.orders.proxy
        if name == HOST or not self.orders.policy.may_look_up(name) or (proxy is not None and proxy.serves(name, None)):
            return True
        try:
            return bool(await self._resolve(name))
        except OSError:
            return True

    async def _resolve(self, name: str) -> list[Address]:
        async with self._lookups:
            return await self._outside.resolve(name)


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)


def _reset(sock: socket.socket) -> None:
    """Break a connection so that both its ends and what copies it notice."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.shutdown(socket.SHUT_RDWR)
