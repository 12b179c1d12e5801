"""Whatever a guest or the control socket sends, the relay answers or refuses: nothing else comes out of it.

`SHED_FUZZ_SECONDS=600` runs each of these for minutes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.rdatatype
import pytest
from hypothesis import strategies as st

from shed.egress import wire
from shed.egress.decisions import Decisions, last
from shed.egress.netd import Netd
from shed.egress.orders import Orders
from shed.egress.relay.names import Names
from shed.egress.relay.nameservice import NameService
from shed.egress.relay.refusal import _answer
from shed.egress.rules.addresses import MADE_UP
from shed.egress.rules.policy import Policy, Profile, normal_name
from shed.errors import ShedError, UsageError
from support.fuzz import fuzz

_REFUSES = (ShedError, ValueError, KeyError, TypeError, AttributeError)
"""What the relay's process answers with an error."""
_NAMES = [
    "example.com",
    "*.example.com",
    "*",
    "a.b.example.com",
    "com",
    "xn--bcher-kva.example",
    "_x.example",
    "1.2.3.4",
]
_LABEL = st.one_of(
    st.text(max_size=70), st.sampled_from(["example", "com", "xn--", "0x7f", "127", "0", "in-addr", "arpa", "ip6", "*"])
)
_NAME = st.one_of(st.sampled_from(_NAMES), st.lists(_LABEL, max_size=6).map(".".join))
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), _NAME),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=12,
)
_RULE = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "allow": st.one_of(_NAME, _JSON),
            "deny": st.one_of(_NAME, st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/0"]), _JSON),
            "ports": st.one_of(st.lists(st.integers(-1, 70000), max_size=4), _JSON),
            "methods": _JSON,
            "paths": _JSON,
        },
    ),
    _JSON,
)
_PROFILE = st.one_of(st.fixed_dictionaries({}, optional={"rules": st.lists(_RULE, max_size=6), "log": _JSON}), _JSON)


def mutated(data: bytes, number: int) -> bytes:
    """Return `data` with some bytes changed, left out or repeated, as `number` has it."""
    chance, found = random.Random(number), bytearray(data)
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(4):
            case 0:
                found[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del found[at : at + chance.randrange(1, 20)]
            case 2:
                found[at:at] = found[: chance.randrange(40)]
            case _:
                found[at : at + 2] = chance.choice([b"\xc0\x0c", b"\xc0\xff", b"\xff\xff", b"\x00\x00", b"\x3f\x00"])
    return bytes(found)


def test_queries() -> None:
    """Of valid ones with bytes changed: each is dropped, or answered within 512 bytes with nothing but what is ours."""
    kinds = ["A", "AAAA", "PTR", "HTTPS", "SOA", "ANY", "TXT"]
    names = ["example.com.", ".", f"{'a' * 63}.example.", "1.0.18.198.in-addr.arpa.", "1.ip6.arpa."]
    queries = [
        dns.message.make_query(name, kind, use_edns=edns, want_dnssec=edns is True).to_wire()
        for name in names
        for kind in kinds
        for edns in (False, True)
    ]

    async def exists(name: str) -> bool:
        return normal_name(name) == name and len(name) % 3 != 0

    service = NameService(Names(), exists)

    def check(drawn: tuple[bytes, int]) -> None:
        query = mutated(*drawn)
        work = service.answer(query)
        try:
            work.send(None)
            raise AssertionError("it waits for something")
        except StopIteration as done:
            answer: bytes | None = done.value
        if answer is None:
            return
        assert len(answer) <= max(512, len(query) + 12)
        assert answer[:2] == query[:2]
        told = dns.message.from_wire(answer)
        for records in told.answer:
            if records.rdtype == dns.rdatatype.A:
                assert all(ipaddress.IPv4Address(str(record)) in MADE_UP for record in records)
            else:
                assert records.rdtype == dns.rdatatype.PTR

    fuzz(check, st.tuples(st.sampled_from(queries), st.integers(0, 2**32)))


def test_what_clients_say_first() -> None:
    """Any bytes have an answer of one kind, or none; what the client said is not in it."""

    def check(said: bytes) -> None:
        answer = _answer(said, "the sentence", "the hint\nand more")
        assert answer == b"" or answer.startswith((b"\x15\x03\x03", b"HTTP/1.1 403 ", b"SSH-2.0-shed\r\n"))
        assert len(answer) < 1000
        assert b"NOT-TO-BE-ECHOED" not in answer

    starts = [b"GET ", b"SSH-2.0-x\r\n", b"\x16\x03\x01", b"HEAD / HTTP/1.0\r\n", b"PROPFIND /", b"", b"EHLO"]
    words = st.sampled_from([b"/ HTTP/1.1\r\n", b"\r\n", b" ", b"NOT-TO-BE-ECHOED", b"\x00", b"\xff" * 50])
    body = st.lists(st.one_of(words, st.binary(max_size=30)), max_size=8).map(b"".join)
    fuzz(check, st.tuples(st.sampled_from(starts), body).map(b"".join))


def test_names() -> None:
    """What is normal stays so, is ASCII, fits, and is nothing that any resolver takes for an address."""

    def check(text: str) -> None:
        try:
            name = normal_name(text)
        except ValueError:
            return
        assert normal_name(name) == normal_name(f"{name}.") == normal_name(name.upper()) == name
        assert name.isascii()
        assert len(name) <= 253
        try:
            socket.inet_aton(name)
        except OSError:
            return
        raise AssertionError(name)

    fuzz(check, _NAME, examples=1000)


@pytest.mark.slow
def test_profiles() -> None:
    """Each is refused with a sentence, or says after JSON what it said before; and denials come before all else."""

    def check(drawn: tuple[Any, str, int]) -> None:
        document, name, port = drawn
        try:
            profile = Profile.parse("p", document)
        except UsageError:
            return
        assert Profile.parse("p", profile.to_json()) == profile
        policy = Policy.of([profile])
        verdict = policy.about_name(name, port)
        denied = any(not rule.allow and rule.fits_name(name, port) for rule in profile.rules)
        allowed = any(rule.allow and rule.fits_name(name, port) for rule in profile.rules)
        assert verdict.allowed == (allowed and not denied)
        for address in ("127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"):
            for named in (True, False):
                assert not policy.about_address(ipaddress.ip_address(address), port, named=named).allowed
        assert Orders.parse(Orders((profile,)).to_json()).profiles == (profile,)

    normal = st.sampled_from(["example.com", "a.example.com", "a.b.example.com", "com", "notexample.com"])
    fuzz(check, st.tuples(_PROFILE, normal, st.sampled_from([1, 80, 443, 65535])), examples=1000)


@pytest.mark.slow
def test_messages() -> None:
    """What a server says is done or answered with an error; nothing else comes out of the relay's process."""

    async def run(netd: Netd, messages: list[Any]) -> None:
        for message in messages:
            try:
                answer = await netd.do(message, [])
            except _REFUSES:
                continue
            wire.encoded(answer)

    words = st.sampled_from(["open", "rule", "close", "list", "hello", "names", "counts", "x", None, 3, ["open"]])
    shed = st.one_of(st.sampled_from(["dev", ""]), _JSON)
    orders = st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "profiles": st.one_of(st.dictionaries(st.text(max_size=5), _PROFILE, max_size=3), _JSON),
                "secrets": _JSON, "authority": _JSON, "host_ports": _JSON, "extra_authorities": _JSON, "proxy": _JSON,
            },
        ),
        _JSON,
    )  # fmt: skip
    message = st.fixed_dictionaries({}, optional={"do": words, "shed": shed, "orders": orders, "names": _JSON})
    with tempfile.TemporaryDirectory() as folder:
        lock = os.open(folder, os.O_RDONLY)

        def check(messages: list[Any]) -> None:
            asyncio.run(run(netd, messages))

        netd = Netd(Path(folder) / "log", lock)
        fuzz(check, st.lists(message, max_size=3))
        asyncio.run(netd.close())
        os.close(lock)


def test_messages_as_bytes() -> None:
    """Bytes that are no message end that connection alone, by an error that who reads them knows."""
    valid = [
        wire.encoded({"do": "list"}),
        wire.encoded({"do": "rule", "shed": "dev", "orders": {"profiles": {"p": {"rules": [{"allow": "*"}]}}}}),
        b"\x00\x00\x0b\xb8" + b"[" * 3000,
    ]

    def check(drawn: tuple[bytes, int]) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(mutated(*drawn))
            theirs.shutdown(socket.SHUT_WR)
            try:
                while True:
                    message, descriptors = wire.receive(ours)
                    assert isinstance(message, dict)
                    assert not descriptors
            except (wire.Closed, ValueError, OSError):
                pass

    fuzz(check, st.tuples(st.sampled_from(valid), st.integers(0, 2**32)))


def test_logs() -> None:
    """A log that was torn, cut or written by another program still shows what can be read of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        log = Decisions(path)
        for number in range(50):
            log.add({"shed": "dev", "port": number, "name": "x" * number})
        whole = path.read_bytes()

        def check(drawn: tuple[int, int]) -> None:
            number, most = drawn
            path.write_bytes(mutated(whole, number))
            found = last(path, "dev", most)
            assert len(found) <= most
            assert all(entry["shed"] == "dev" for entry in found)

        fuzz(check, st.tuples(st.integers(0, 2**32), st.integers(0, 60)), examples=200)


def test_a_message_nests_only_so_deep() -> None:
    """One that does not is nonsense, and no more than that."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall((200_000).to_bytes(4, "big"))
        theirs.sendall(b"[" * 150_000)
        theirs.sendall(b"[" * 50_000)
        with pytest.raises(ValueError, match="nests too deeply"):
            wire.receive(ours)
