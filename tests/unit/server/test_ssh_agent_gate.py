"""What is passed on to a client's SSH agent: message by message, and whatever bytes come."""

from __future__ import annotations

import contextlib
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import MPInt, String
from hypothesis import strategies as st

from shed.errors import UsageError
from shed.server.ssh import agentwire
from shed.server.ssh.agentgate import Gate
from shed.server.ssh.agentwire import Binding, Commit, List, Login, MessageError
from shed.server.ssh.knownhosts import KnownHosts, is_signature
from shed.sheds.agentrule import AgentHost, AgentRule
from support.fuzz import fuzz
from support.tools.agent_messages import OTHER_SESSION, SESSION, Key, bind, login_data, sign, signature_data

RULE = AgentRule.parse(["git@git.example.com"])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    """Keys of a host, of another host, and of a user."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("host", "other", "user"):
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / name)
    return {name: Key(folder / name) for name in ("host", "other", "user")}


@pytest.fixture(scope="module")
def known(keys: dict[str, Key], tmp_path_factory: pytest.TempPathFactory) -> KnownHosts:
    """Hosts that are known."""
    file = tmp_path_factory.mktemp("known") / "known_hosts"
    file.write_text(f"git.example.com {keys['host'].line}\nother.example.com {keys['other'].line}\n")
    return KnownHosts([file])


def test_what_messages_ask_for(keys: dict[str, Key]) -> None:
    """Each kind that there is."""
    host, user = keys["host"], keys["user"]
    assert agentwire.parse(bytes([11])) == List()
    assert agentwire.parse(bind(host)) == Binding(host.blob, SESSION, host.sign(SESSION))
    assert agentwire.parse(sign(user, login_data(user))) == Login(SESSION, "git", None)
    assert agentwire.parse(sign(user, login_data(user, host=host))) == Login(SESSION, "git", host.blob)
    assert agentwire.parse(sign(user, signature_data(b"git"))) == Commit()


def test_data_that_is_no_login(keys: dict[str, Key]) -> None:
    """Each member matters."""
    user = keys["user"]
    data = login_data(user)
    wrong = {
        "another message": data.replace(String(SESSION) + b"\x32", String(SESSION) + b"\x33"),
        "another service": data.replace(b"ssh-connection", b"ssh-connectioN"),
        "another method": data.replace(b"publickey", b"publickez"),
        "without a signature": data.replace(String(b"publickey") + b"\x01", String(b"publickey") + b"\x00"),
        "a name that is no text": data.replace(String(b"git"), String(b"gi\xff")),
        "more": data + b"\x00",
        "less": data[:-1],
    }
    for what, changed in wrong.items():
        assert changed != data, what
        with pytest.raises(MessageError):
            agentwire.parse(sign(user, changed))


def test_any_bytes_at_all() -> None:
    """Are a message, or a `MessageError`."""

    def check(message: bytes) -> None:
        with contextlib.suppress(MessageError):
            agentwire.parse(message)

    fuzz(check, st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"\x0d" + data))


def test_what_was_changed_on_the_way_signs_for_no_other_session(keys: dict[str, Key], known: KnownHosts) -> None:
    """Whatever bytes of a message are others: what is passed on is still about the session that the host signed."""
    user, host = keys["user"], keys["host"]
    passed = 0

    def check(data: st.DataObject) -> None:
        nonlocal passed
        messages = [bind(host), sign(user, login_data(user, host=data.draw(st.sampled_from([None, host]))))]
        which = data.draw(st.integers(0, 1))
        changed = bytearray(messages[which])
        for place in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=3)):
            changed[place] = data.draw(st.integers(0, 255))
        messages[which] = bytes(changed)
        gate = Gate(known)
        verdict = [gate.judge(message, RULE) for message in messages][1]
        if isinstance(verdict.request, Login):
            passed += 1
            bound = agentwire.parse(messages[0])
            assert isinstance(bound, Binding)
            assert (bound.host_key, bound.session) == (host.blob, SESSION)
            assert verdict.request.session == SESSION
            assert verdict.request.user == "git"
            assert String(SESSION) in messages[1]

    fuzz(check, st.data(), examples=1000)
    assert passed  # changes that mean nothing, as of the kind of hash


def test_only_the_host_of_the_rule(keys: dict[str, Key], known: KnownHosts) -> None:
    """And its user; why not is told with what would allow it."""
    host, other, user = keys["host"], keys["other"], keys["user"]

    def last(*messages: bytes, rule: AgentRule = RULE) -> tuple[str, ...]:
        gate = Gate(known)
        verdict = [gate.judge(message, rule) for message in messages][-1]
        assert (verdict.request is None) == bool(verdict.why)
        return verdict.used or verdict.why, *verdict.words

    login = sign(user, login_data(user))
    assert last(bind(host), login) == ("git@git.example.com",)
    assert last(bind(host), sign(user, login_data(user, name="root"))) == (
        "it logs in at git.example.com as another user",
        "git@git.example.com",
        "USER@git.example.com",
    )
    assert last(bind(other), login)[1:] == ("git@git.example.com", "HOST")
    assert last(bind(host), login, rule=AgentRule()) == ("it may be used for no host", "HOST")
    assert last(sign(user, signature_data(b"git"))) == ("it signs no commits", "git@git.example.com", "@git-signing")
    assert last(bind(host, signer=other)) == ("a host is named that did not sign the session",)
    assert len(last(bind(host), sign(user, login_data(user, OTHER_SESSION)), rule=AgentRule.parse(["*"]))) == 1


@pytest.mark.parametrize("kind", ["ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-ed25519"])
def test_signatures_of_hosts(kind: str) -> None:
    """Of each kind of key; none by SHA-1."""
    key = asyncssh.generate_private_key(kind)
    for name in key.sig_algorithms:
        good = {b"rsa-sha2-256", b"rsa-sha2-512"} if kind == "ssh-rsa" else {kind.encode()}
        assert is_signature(key.public_data, SESSION, key.sign(SESSION, name)) == (name in good), name
    assert not is_signature(key.public_data, OTHER_SESSION, key.sign(SESSION, key.sig_algorithms[0]))


def test_signatures_that_are_none(keys: dict[str, Key]) -> None:
    """Are none, and no error, be it the key that makes no sense or the signature."""
    host = keys["host"]
    kinds = st.sampled_from([b"ssh-ed25519", b"ssh-rsa", b"ecdsa-sha2-nistp256", b"ssh-ed25519-cert-v01@openssh.com"])
    blobs = st.binary(max_size=100) | st.tuples(kinds, st.binary(max_size=100)).map(lambda two: String(two[0]) + two[1])

    def check(drawn: tuple[bytes, bytes]) -> None:
        blob, signature = drawn
        assert not is_signature(blob, SESSION, host.sign(SESSION))
        assert not is_signature(host.blob, SESSION, signature)

    fuzz(check, st.tuples(blobs, blobs))
    negative = String(b"ssh-rsa") + MPInt(3) + MPInt(-5)
    check((negative, negative))


def test_files_of_known_hosts(keys: dict[str, Key], tmp_path: Path) -> None:
    """Hashed and wild names, ports, other hosts, what is revoked, what changes, and what cannot be used."""
    host, other = keys["host"], keys["other"]
    first, second = tmp_path / "first", tmp_path / "second"
    known = KnownHosts([first, second])
    name = AgentHost.parse("git.example.com")
    assert not known.knows(name)
    hashed = "|1|qZeSClQB5jrX0FFpLqpNZpZ0AKg=|"
    first.write_text(
        f"# {hashed}\nnonsense\n*.example.com,!evil.example.com {host.line}\n[b.example.org]:22022 {other.line}\n"
    )
    assert known.is_key_of(name, host.blob)
    assert not known.is_key_of(name, other.blob)
    assert not known.knows(AgentHost.parse("evil.example.com"))
    assert known.is_key_of(AgentHost.parse("b.example.org:22022"), other.blob)
    assert not known.knows(AgentHost.parse("b.example.org"))
    second.write_text(f"@revoked * {host.line}\n")
    assert not known.is_key_of(name, host.blob)
    second.write_text("@revoked nonsense\n")
    with pytest.raises(UsageError, match="a line that makes no sense"):
        known.knows(name)
    second.write_text("")
    second.chmod(0o666)
    with pytest.raises(UsageError, match="others can write to it"):
        known.knows(name)


def test_words_of_a_rule() -> None:
    """What is written is what is kept, in one spelling."""
    words = ["git@GitHub.com", "a.example.com:22", "[::1]:2222", "10.0.0.1", "*", "@git-signing", "a.example.com"]
    rule = AgentRule.parse(words)
    kept = ["git@github.com", "a.example.com", "[::1]:2222", "10.0.0.1", "*", "@git-signing"]
    assert rule.words() == kept
    assert AgentRule.parse(kept) == rule


@pytest.mark.parametrize(
    "word", ["", "a b", "*.example.com", "a:0", "a:70000", "$(id)@a", "@", "@x", "a@", "ssh://a", "a;b", "a\n"]
)
def test_words_that_are_no_rule(word: str) -> None:
    """Are refused, and named."""
    with pytest.raises(UsageError, match="is no host for an SSH agent"):
        AgentRule.parse([word])
