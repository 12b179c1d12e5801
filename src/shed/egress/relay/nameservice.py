"""The name service of one shed: every name is answered with an address made up for it.

A name that no rule allows gets an address too: the connection to it is then refused with a reason, which a name service
cannot give.  Only for names that a rule allows the host's own resolver is asked, whether there is such a name at all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from shed.egress.relay.names import Names
from shed.egress.rules.addresses import MADE_UP
from shed.egress.rules.policy import normal_name

TTL = 10
"""Seconds for which an answer may be kept: a server that is started again knows none of the old ones."""
MOST_ASKED = 64
"""Queries of one shed that are under way at once; more are dropped, and asked again by whoever cares."""
_MOST_UDP = 512
_MOST_QUERY = 1232
"""Bytes: a question has 259 at most.  Thousands of records would take a tenth of a second, in which all sheds wait."""
MOST_PER_SECOND = 500
"""Queries of one shed: each takes a fifth of a millisecond, in which all other sheds wait.  More wait in its socket,
and those that do not fit there are lost.
"""
_REVERSE, _REVERSE_6 = ".in-addr.arpa", ".ip6.arpa"

Exists = Callable[[str], Awaitable[bool]]
"""Tells whether there is a name, or whether nobody may know."""


class NameService:
    """Answers the queries of one shed.  `exists` is asked for each name."""

    def __init__(self, names: Names, exists: Exists) -> None:
        self._names = names
        self._exists = exists
        self._tasks: set[asyncio.Task[None]] = set()
        self._udp: socket.socket | None = None
        self._second = 0.0
        self._taken = 0
        """Queries since `_second`."""

    def start(self, udp: socket.socket) -> None:
        """Answer what comes through the socket `udp` from now on."""
        udp.setblocking(False)
        self._udp = udp
        asyncio.get_running_loop().add_reader(udp, self._receive, udp)

    def close(self) -> None:
        """Answer no more; the socket can be closed."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp = None
        for task in self._tasks:
            task.cancel()

    async def answer(self, query: bytes) -> bytes | None:
        """Return the answer to `query`, None for what is not one."""
        if len(query) > _MOST_QUERY:
            return None
        try:
            message = dns.message.from_wire(query, ignore_trailing=False)
        except (dns.exception.DNSException, ValueError):
            return None
        if message.flags & dns.flags.QR:
            return None
        response = dns.message.make_response(message, recursion_available=True)
        if message.opcode() != dns.opcode.QUERY or len(message.question) != 1:
            response.set_rcode(dns.rcode.NOTIMP)
            return response.to_wire()
        question = message.question[0]
        if question.rdclass != dns.rdataclass.IN:
            response.set_rcode(dns.rcode.REFUSED)
            return response.to_wire()
        text = question.name.to_text(omit_final_dot=True).lower()
        if text.endswith(_REVERSE):
            self._reverse(response, question, text)
            return response.to_wire()
        if question.name == dns.name.root:  # resolvers ask for it to see who answers
            return response.to_wire()
        if text.endswith(_REVERSE_6):
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response.to_wire()
        try:
            name = normal_name(text)
        except ValueError:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response.to_wire()
        if not await self._exists(name):
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            _add(response, question, str(self._names.address_of(name)))
        return response.to_wire()

    def _reverse(self, response: dns.message.Message, question: dns.rrset.RRset, text: str) -> None:
        """Tell which name an address was made up for."""
        name = None
        try:
            address = ipaddress.IPv4Address(".".join(reversed(text.removesuffix(_REVERSE).split("."))))
            name = self._names.name_of(address) if address in MADE_UP else None
        except ValueError:
            pass
        if name is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.PTR:
            _add(response, question, f"{name}.")

    def _receive(self, udp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._second >= 1.0:
            self._second, self._taken = loop.time(), 0
        self._taken += 1
        if self._taken > MOST_PER_SECOND:
            loop.remove_reader(udp)
            loop.call_at(self._second + 1.0, self._go_on, udp)
            return
        try:
            query, sender = udp.recvfrom(65535)
        except OSError:
            return
        if len(self._tasks) >= MOST_ASKED:
            return
        task = loop.create_task(self._reply(udp, query, sender))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _go_on(self, udp: socket.socket) -> None:
        if self._udp is udp:
            asyncio.get_running_loop().add_reader(udp, self._receive, udp)

    async def _reply(self, udp: socket.socket, query: bytes, sender: tuple[object, ...]) -> None:
        answer = await self.answer(query)
        if answer is not None and len(answer) <= _MOST_UDP:
            try:
                udp.sendto(answer, sender)
            except OSError:
                return  # the shed has gone, or its queue is full: it asks again


def _add(response: dns.message.Message, question: dns.rrset.RRset, value: str) -> None:
    response.answer.append(dns.rrset.from_text(question.name, TTL, question.rdclass, question.rdtype, value))
