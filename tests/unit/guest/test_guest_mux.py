"""The guest's side of the multiplexer: sessions begin cleanly whatever came before."""

import os
import random
import socket

import pytest

from shed.guest import protocol as p
from support.guests.agent import Agent, Command, CutError, Host, HostStream, run
from support.waiting import wait_until


def attach_bytes(nonce: str) -> bytes:
    """What a host says to begin."""
    return p.MAGIC + p.mux_frame(p.ATTACH, 0, nonce.encode())


def test_the_guest_speaks_first_with_a_fresh_nonce(agent: Agent) -> None:
    """Every host hears a hello of its own, and who the agent is."""
    nonces = set()
    for _ in range(5):
        with agent.host() as host:
            nonces.add(host.hello["nonce"])
            assert host.hello["protocol"] == p.PROTOCOL
    assert len(nonces) == 5


def conversation(nonce: str) -> bytes:
    """A session with frames of every kind a host sends."""
    request = p.exec_frame(p.EXEC_REQUEST, b'{"cmd": ["sleep", "100"]}')
    return (
        attach_bytes(nonce)
        + p.mux_frame(p.OPEN, 1, p.PORT_EXEC.to_bytes(4, "big"))
        + p.mux_frame(p.DATA, 1, request)
        + p.mux_frame(p.CREDIT, 1, (1000).to_bytes(4, "big"))
        + p.mux_frame(p.OPEN, 2, p.PORT_CONTROL.to_bytes(4, "big"))
        + p.mux_frame(p.DATA, 2, p.exec_frame(p.CONTROL_REQUEST, b'{"op": "health"}'))
        + p.mux_frame(p.EOF, 2)
        + p.mux_frame(p.RESET, 1, b"enough")
    )


def test_a_session_cut_at_every_byte_leaves_nothing_behind(agent: Agent) -> None:
    """After any half-sent byte stream the next host is served."""
    length = len(conversation("0" * 32))
    for cut in range(length + 1):
        host = Host(agent.connect())
        host.sock.sendall(conversation(host.read_hello())[:cut])
        host.close()
    with agent.host() as host:
        assert run(host, "echo", "well").stdout == b"well\n"
        wait_until(lambda: host.control(op="health")["sessions"] == 0, what="no session of the hosts that left")


@pytest.mark.parametrize("seed", range(30))
def test_leftovers_before_the_attach_are_thrown_away(agent: Agent, seed: int) -> None:
    """Bytes of an earlier session, its attach, pieces of the magic: none of it confuses the beginning."""
    chance = random.Random(seed)
    pieces = [
        conversation("f" * 32), p.MAGIC, p.MAGIC[:7], attach_bytes("a" * 32)[:-3], chance.randbytes(300), b"\0" * 9,
        p.mux_frame(p.DATA, 1, bytes(5000))[:4000],
    ]  # fmt: skip
    host = Host(agent.connect())
    nonce = host.read_hello()
    for piece in chance.choices(pieces, k=4):
        host.sock.sendall(piece)
    host.sock.sendall(attach_bytes(nonce))
    assert run(host, "echo", str(seed)).stdout == f"{seed}\n".encode()
    host.close()


def test_byte_by_byte(agent: Agent) -> None:
    """Frames arrive whole however they are cut on the way."""
    host = Host(agent.connect())
    nonce = host.read_hello()
    request = p.exec_frame(p.CONTROL_REQUEST, b'{"op": "health"}')
    frames = p.mux_frame(p.OPEN, 1, p.PORT_CONTROL.to_bytes(4, "big")) + p.mux_frame(p.DATA, 1, request)
    stream = host.streams[1] = HostStream(host, 1)
    for byte in attach_bytes(nonce) + frames:
        host.sock.sendall(bytes([byte]))
    assert stream.frame()[0] == p.CONTROL_RESPONSE
    host.close()


def test_an_attach_with_another_nonce_is_not_ours(agent: Agent) -> None:
    """A host that answers an old hello gets nowhere."""
    host = Host(agent.connect())
    host.read_hello()
    host.sock.sendall(attach_bytes("0" * 32) + p.mux_frame(p.OPEN, 1, p.PORT_CONTROL.to_bytes(4, "big")))
    assert not host.pump(0.3)
    host.close()


@pytest.mark.parametrize("frame", [
    p.mux_frame(77, 1), b"\x04\0\0\0\1\xff\xff\xff\xff", p.mux_frame(p.OPEN, 1, b"xx"), p.MAGIC,
    p.mux_frame(p.HELLO, 0, b"{}"),
])  # fmt: skip
def test_a_broken_frame_ends_the_session_and_a_new_one_begins(agent: Agent, frame: bytes) -> None:
    """The guest starts over at once: it says hello again."""
    host = Host(agent.connect())
    host.attach()
    command = Command(host, "sleep", "100")
    wait_until(lambda: host.control(op="health")["sessions"] == 1, what="the command runs")
    host.sock.sendall(frame)
    nonce = host.read_hello()
    host.sock.sendall(attach_bytes(nonce))
    host.streams.clear()
    wait_until(lambda: host.control(op="health")["sessions"] == 0, what="the old session's command is gone")
    del command
    host.close()


def test_hundreds_of_instant_reconnects(agent: Agent) -> None:
    """Hosts that come and go at once do not confuse it."""
    for turn in range(300):
        sock = agent.connect()
        if turn % 3:
            sock.sendall(os.urandom(turn))
        sock.close()
    with agent.host() as host:
        assert run(host, "true").exit == {"code": 0}


def test_a_port_nobody_listens_on(host: Host) -> None:
    """Refused with a reason; the session goes on."""
    stream = host.open(4711)
    with pytest.raises(CutError, match="nothing listens on port 4711"):
        stream.read()
    assert run(host, "true").exit == {"code": 0}


def test_data_beyond_the_credit_cuts_the_stream(host: Host) -> None:
    """The guest holds no more than it said."""
    command = Command(host, "sleep", "100")
    for _ in range(12):
        host.sock.sendall(p.mux_frame(p.DATA, command.stream.number, p.exec_frame(p.DATA_FRAME, bytes(60_000))))
    with pytest.raises(CutError, match="credit"):
        command.wait()
    assert run(host, "true").exit == {"code": 0}


def test_frames_of_a_stream_that_is_gone_are_ignored(host: Host) -> None:
    """The host may not know yet that the guest cut it."""
    stream = host.open(4711)
    for kind, payload in ((p.DATA, b"x"), (p.CREDIT, bytes(4)), (p.EOF, b""), (p.RESET, b"bye")):
        host.sock.sendall(p.mux_frame(kind, stream.number, payload))
    assert run(host, "true").exit == {"code": 0}


def test_memory_stays_bounded_when_a_host_takes_nothing(agent: Agent) -> None:
    """A host that opens streams and never reads stops being read, and costs little."""

    def resident() -> int:
        with open(f"/proc/{agent.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    host = Host(agent.connect())
    host.attach()
    assert run(host, "true").exit == {"code": 0}
    before = resident()
    host.sock.settimeout(1)
    with pytest.raises(socket.timeout):
        for number in range(100, 1_000_000):
            host.sock.sendall(p.mux_frame(p.OPEN, number, (9).to_bytes(4, "big")))
    assert resident() - before < 16_000_000
    host.close()


def test_a_stream_that_carries_much_gets_a_larger_window(host: Host) -> None:
    """With its first credit; one that carries little keeps what it began with."""
    command = Command(host, "cat")
    command.send(p.DATA_FRAME, bytes(1000))
    command.until(bytes(1000))
    assert command.stream.credit < p.INITIAL_CREDIT
    rest = 3 * p.GROWN_CREDIT
    command.send(p.DATA_FRAME, bytes(rest))
    command.until(bytes(1000 + rest))
    assert p.GROWN_CREDIT // 2 < command.stream.credit <= p.GROWN_CREDIT
    command.stream.reset()


def test_many_streams_share_fairly(host: Host) -> None:
    """A short answer does not wait for the end of others, which never comes."""
    endless = [Command(host, "cat", "/dev/zero") for _ in range(4)]
    for command in endless:
        command.until(b"\0")
    assert run(host, "echo", "short").stdout == b"short\n"
    for command in endless:
        assert not command.result.exit
        command.stream.reset()
