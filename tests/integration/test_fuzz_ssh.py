"""Whatever a client with a key sends inside the encryption, the SSH front refuses it or serves it: no bug is logged,
others go on.

Messages of RFC 4254 with odd contents, and bytes that are no message.  `SHED_FUZZ_SECONDS` asks for a longer, random
run.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from paramiko.message import Message

from support.fuzz import SECONDS, repeat
from support.tools.ssh_host import Host

EXAMPLES = 60
"""Connections in a run; a longer one is several such runs."""
GLOBAL, OPEN, DATA, REQUEST = 80, 90, 94, 98
"""SSH_MSG_GLOBAL_REQUEST, …_CHANNEL_OPEN, …_CHANNEL_DATA, …_CHANNEL_REQUEST."""
LOG_LIMIT = 256 * 1024
"""Bytes that the server may log for a whole run."""

words = st.text(st.characters(codec="utf-8"), max_size=20).map(str.encode)
numbers = st.one_of(st.sampled_from([0, 1, 22, 65535, 65536, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))
flags = st.booleans()
four: list[Any] = [numbers] * 4
REQUESTS: dict[bytes, list[Any]] = {
    b"pty-req": [words, *four, words],
    b"env": [words, words],
    b"exec": [words],
    b"shell": [],
    b"subsystem": [words],
    b"window-change": four,
    b"signal": [st.one_of(st.sampled_from([b"TERM", b"KILL", b"WINCH"]), words)],
    b"break": [numbers],
    b"xon-xoff": [flags],
    b"exit-status": [numbers],
    b"x11-req": [flags, words, words, numbers],
    b"auth-agent-req@openssh.com": [],
    b"eow@openssh.com": [],
}
GLOBALS: dict[bytes, list[Any]] = {
    b"tcpip-forward": [words, numbers],
    b"cancel-tcpip-forward": [words, numbers],
    b"streamlocal-forward@openssh.com": [words],
    b"hostkeys-prove-00@openssh.com": [words],
    b"no-more-sessions@openssh.com": [],
}
OPENS: dict[bytes, list[Any]] = {
    b"session": [numbers, numbers, numbers],
    b"direct-tcpip": [numbers, numbers, numbers, st.one_of(st.just(b"localhost"), words), numbers, words, numbers],
    b"forwarded-tcpip": [numbers, numbers, numbers, words, numbers, words, numbers],
    b"direct-streamlocal@openssh.com": [numbers, numbers, numbers, words, words, numbers],
    b"x11": [numbers, numbers, numbers, words, numbers],
}
Sent = tuple[int, bytes, list[bytes | int | bool]]


def well_formed(kind: int, layouts: dict[bytes, list[Any]]) -> st.SearchStrategy[Sent]:
    """Messages of the right form, with odd contents."""
    return st.one_of(
        *(st.tuples(st.just(kind), st.just(word), st.tuples(*layout).map(list)) for word, layout in layouts.items())
    )


any_fields = st.lists(st.one_of(words, st.binary(max_size=40), numbers, flags), max_size=7)
malformed: st.SearchStrategy[Sent] = st.tuples(
    st.one_of(st.sampled_from([REQUEST, GLOBAL, OPEN, DATA]), st.integers(0, 255)),
    st.one_of(words, st.sampled_from(list(REQUESTS))),
    any_fields,
)
proper: st.SearchStrategy[Sent] = st.one_of(
    well_formed(REQUEST, REQUESTS),
    well_formed(GLOBAL, GLOBALS),
    well_formed(OPEN, OPENS),
    st.tuples(st.just(DATA), words, st.just([])),
)
connections = st.tuples(st.lists(proper, min_size=1, max_size=12), st.lists(malformed, max_size=1)).map(
    lambda both: both[0] + both[1]
)
"""What is sent on one connection; the first malformed message ends it."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A server with one shed, whose log is looked at in the end."""
    root = tmp_path_factory.mktemp("fuzz")
    with (root / "log").open("wb") as log:
        host = Host(root, log=log)
        try:
            host.create("dev")
            yield host
        finally:
            host.end()


def encoded(kind: int, word: bytes, rest: list[bytes | int | bool], channel: int) -> Message:
    """Return one message: to `channel`, or of no channel, with its fields as RFC 4251 has them."""
    message = Message()
    message.add_byte(bytes([kind]))
    if kind in (REQUEST, DATA):
        message.add_int(channel)
    message.add_string(word)
    if kind in (REQUEST, GLOBAL):
        message.add_boolean(True)
    for field in rest:
        if isinstance(field, bool):
            message.add_boolean(field)
        elif isinstance(field, int):
            message.add_int(field)
        else:
            message.add_string(field)
    return message


def send(host: Host, sent: list[Sent]) -> None:
    """Send messages on a connection of their own, and wait until the server has read them or hung up."""
    with (
        socket.create_connection(("127.0.0.1", host.ssh.port), timeout=60) as sock,
        contextlib.closing(paramiko.Transport(sock)) as client,
    ):
        client.connect(username="dev", pkey=paramiko.Ed25519Key.from_private_key_file(str(host.ssh.private)))
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            channel = client.open_session(timeout=60)
            for kind, word, rest in sent:
                client._send_user_message(encoded(kind, word, rest, channel.remote_chanid))  # type: ignore[attr-defined]
            client.global_request("keepalive@openssh.com", wait=True)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not SECONDS,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(connections)
def a_run(host: Host, sent: list[Sent]) -> None:
    """One connection."""
    send(host, sent)


def test_no_message_is_a_bug(host: Host) -> None:
    """After all of them the front serves others, and the log has neither a traceback nor a flood."""
    repeat(a_run, host)
    assert host.ssh.run("dev@shed", "echo here").stdout == b"here\n"
    said = (Path(host.ssh.folder).parent / "log").read_bytes()
    assert b"Traceback" not in said, said.decode(errors="replace")[-5000:]
    assert b"internal error" not in said
    assert len(said) < LOG_LIMIT
