"""What goes over a lab's wire between the host and the internet, and a name server that writes down its queries."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType

_CLONE_NEWNET = 0x40000000
_ALL_FRAMES = 3
_HEAD = 14
NAME_SERVER = """
import socket, sys
import dns.message, dns.rrset, dns.rcode
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("100.127.0.2", 53))
print("ready", flush=True)
with open(sys.argv[1], "a", buffering=1) as log:
    while True:
        data, sender = udp.recvfrom(4096)
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        log.write(name + "\\n")
        answer = dns.message.make_response(query)
        if name.startswith("missing"):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == 1:
            address = "10.1.2.3" if name.endswith("corp.example") else "93.184.216.34"
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", address))
        udp.sendto(answer.to_wire(), sender)
"""
"""Every name that does not begin with ``missing`` is there; those of corp.example are in a private network."""


class Watch:
    """Collects what a card of a namespace sends and receives while the block lasts, as ``PROTOCOL RECEIVER PORT``."""

    def __init__(self, namespace: str, card: str = "veth") -> None:
        self._sock = _packets(namespace, card)
        self._seen: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sock.close()

    @property
    def seen(self) -> set[str]:
        """What went out of the host so far."""
        return set(self._seen)

    def _collect(self) -> None:
        self._sock.settimeout(0.2)
        while not self._ended.is_set():
            try:
                frame, (_, _, direction, *_) = self._sock.recvfrom(200)
            except TimeoutError:
                continue
            if direction == socket.PACKET_OUTGOING:
                self._seen.add(_named(frame))


def _named(frame: bytes) -> str:
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == 0x0806:
        return "arp"
    if kind != 0x0800:
        return f"frame {kind:#06x}"
    number, to = frame[_HEAD + 9], socket.inet_ntoa(frame[_HEAD + 16 : _HEAD + 20])
    offset = _HEAD + (frame[_HEAD] & 15) * 4
    port = f" {struct.unpack_from('!H', frame, offset + 2)[0]}" if number in {6, 17} else ""
    return f"{ {6: 'tcp', 17: 'udp', 1: 'icmp'}.get(number, str(number)) } {to}{port}"


def _packets(namespace: str, card: str) -> socket.socket:
    """Return a packet socket on a namespace's card."""
    made: list[socket.socket] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{namespace}").open("rb") as handle:
            assert libc.setns(handle.fileno(), _CLONE_NEWNET) == 0
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_FRAMES))
        sock.bind((card, 0))
        made.append(sock)

    thread = threading.Thread(target=make)  # a namespace is a thread's
    thread.start()
    thread.join()
    return made[0]
