"""Made-up addresses and the name service that gives them out."""

import asyncio
import ipaddress
import socket

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.egress.relay import names as names_module
from shed.egress.relay import nameservice
from shed.egress.relay.names import Names
from shed.egress.relay.nameservice import NameService
from shed.egress.rules.addresses import MADE_UP


def test_a_name_keeps_its_address() -> None:
    """And the address leads back to it alone."""
    names = Names()
    first, second = names.address_of("a.example"), names.address_of("b.example")
    assert names.address_of("a.example") == first != second
    assert (names.name_of(first), names.name_of(second)) == ("a.example", "b.example")
    assert first in MADE_UP


def test_names_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was asked for longest ago makes room, and its address leads nowhere then."""
    monkeypatch.setattr(names_module, "MOST_NAMES", 3)
    names = Names()
    addresses = [names.address_of(f"{number}.example") for number in range(3)]
    names.address_of("0.example")
    names.address_of("new.example")
    assert names.name_of(addresses[0]) == "0.example"
    assert names.name_of(addresses[1]) is None
    assert len({*addresses, names.address_of("other.example")}) == 4


def test_addresses_are_used_again_only_after_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever kept an old one finds nothing there, and the range has an end that is not run over."""
    monkeypatch.setattr(names_module, "MOST_NAMES", 2)
    monkeypatch.setattr(names_module, "_COUNT", 8)
    names = Names()
    seen = [names.address_of(f"{number}.example") for number in range(16)]
    assert len(set(seen[:8])) == 8
    assert set(seen) == set(seen[:8])


async def exists(name: str) -> bool:
    """Say that there are all names but one."""
    return name != "missing.example"


async def ask(service: NameService, name: str, kind: str = "A") -> dns.message.Message:
    """Return the answer to a query."""
    answer = await service.answer(dns.message.make_query(name, kind).to_wire())
    assert answer is not None
    return dns.message.from_wire(answer)


async def test_a_name_is_answered_with_its_address() -> None:
    """In any case of its letters; the reverse lookup leads back."""
    names = Names()
    service = NameService(names, exists)
    answer = await ask(service, "WWW.Example.")
    assert [str(record) for record in answer.answer[0]] == [str(names.address_of("www.example"))]
    back = await ask(service, names.address_of("www.example").reverse_pointer, "PTR")
    assert [str(record) for record in back.answer[0]] == ["www.example."]


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "MX", "HTTPS", "SRV", "ANY", "NS", "CNAME"])
async def test_nothing_but_addresses_is_told(kind: str) -> None:
    """Other records could carry something in; the name is there all the same."""
    answer = await ask(NameService(Names(), exists), "www.example", kind)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize(("name", "code"), [
    ("missing.example", dns.rcode.NXDOMAIN), ("1.2.3.4", dns.rcode.NXDOMAIN), ("bad!.example", dns.rcode.NXDOMAIN),
    ("1.0.0.127.in-addr.arpa", dns.rcode.NXDOMAIN), ("x.in-addr.arpa", dns.rcode.NXDOMAIN),
    (f"{'1.' * 32}ip6.arpa", dns.rcode.NXDOMAIN),
])  # fmt: skip
async def test_what_is_no_name_is_not_there(name: str, code: dns.rcode.Rcode) -> None:
    """Nor are the addresses of others."""
    assert (await ask(NameService(Names(), exists), name, "PTR" if name.endswith("arpa") else "A")).rcode() == code


async def test_odd_queries_are_refused() -> None:
    """Other classes, updates, answers, and bytes that are no query."""
    service = NameService(Names(), exists)
    chaos = await service.answer(dns.message.make_query("version.bind", "TXT", "CH").to_wire())
    assert chaos is not None
    assert dns.message.from_wire(chaos).rcode() == dns.rcode.REFUSED
    notify = dns.message.make_query("www.example", "A")
    notify.set_opcode(dns.opcode.NOTIFY)
    answer = await service.answer(notify.to_wire())
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.NOTIMP
    query = dns.message.make_query("www.example", "A")
    query.flags |= dns.flags.QR
    assert await service.answer(query.to_wire()) is None
    assert await service.answer(b"") is None
    assert await service.answer(b"\0" * 11) is None


async def test_the_root_is_there() -> None:
    """A resolver that asks for it first must not take it that there are no names at all."""
    for kind in ("NS", "SOA", "DNSKEY"):
        answer = await ask(NameService(Names(), exists), ".", kind)
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


async def test_extensions_are_answered_within_what_every_resolver_takes() -> None:
    """EDNS, cookies, DNSSEC and the longest names: 512 bytes are never exceeded, and the letters stay as they were."""
    names = Names()
    service = NameService(names, exists)
    longest = ".".join(["a" * 63] * 3 + ["B" * 59])
    query = dns.message.make_query(longest, "A", use_edns=0, want_dnssec=True, payload=4096)
    wire = await service.answer(query.to_wire())
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert (answer.edns, str(answer.question[0].name)) == (0, f"{longest}.")
    back = await service.answer(dns.message.make_query(str(names.address_of(longest.lower()).reverse_pointer), "PTR",
                                                       use_edns=0).to_wire())  # fmt: skip
    assert back is not None
    assert str(dns.message.from_wire(back).answer[0][0]) == f"{longest.lower()}."
    assert max(len(wire), len(back)) <= 512


async def test_a_flood_of_queries_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one shed only so many are answered in a second: others get their turn.  What waited is answered then."""
    monkeypatch.setattr(nameservice, "MOST_PER_SECOND", 5)
    service, loop = NameService(Names(), exists), asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        client.setblocking(False)
        began = loop.time()
        service.start(server)
        for _ in range(12):
            client.send(dns.message.make_query("www.example", "A").to_wire())
        times = []
        for _ in range(12):
            await asyncio.wait_for(loop.sock_recv(client, 4096), 60)
            times.append(loop.time() - began)
        assert times[5] >= 0.9  # a reader that was never taken away would have them all at once
        assert times[10] >= 1.9
        service.close()


async def test_a_long_query_is_not_taken_apart() -> None:
    """Thousands of records would take a tenth of a second, in which all sheds wait."""
    query = dns.message.make_query("www.example", "A")
    query.additional.append(
        dns.rrset.from_text("www.example.", 1, "IN", "A", *(f"192.0.2.{last}" for last in range(99)))
    )
    assert len(query.to_wire()) > 1232
    assert await NameService(Names(), exists).answer(query.to_wire()) is None


@given(st.binary(max_size=600))
def test_any_bytes_are_answered_or_dropped(data: bytes) -> None:
    """Nothing that a shed sends ends the service."""
    answer = NameService(Names(), exists).answer(data)
    with pytest.raises(StopIteration):
        answer.send(None)


async def test_queries_by_udp() -> None:
    """A query through the socket is answered to whoever sent it; a flood is dropped, and does not grow."""
    service = NameService(Names(), exists)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        client.setblocking(False)
        service.start(server)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, dns.message.make_query("www.example", "A").to_wire())
        answer = dns.message.from_wire(await asyncio.wait_for(loop.sock_recv(client, 4096), 60))
        assert ipaddress.ip_address(str(answer.answer[0][0])) in MADE_UP
        service.close()
