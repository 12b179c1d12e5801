"""Which token a client shows to whom: never to a stranger, never over a network."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shed.client.address import Address, parse
from shed.client.tokens import keep, token_for
from shed.client.transport import authorization
from shed.errors import UsageError
from support.ports import free_port


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without tokens."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHED_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("SHED_TOKEN", raising=False)
    return tmp_path


def near(port: int = 1) -> Address:
    return Address(host="127.0.0.1", port=port)


def test_the_first_that_has_one_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's own, the environment's, the one that was kept, the local server's."""
    assert token_for(near()) is None
    (home / "run").mkdir()
    (home / "run/tokens").write_text("http://127.0.0.1:1 shed_server\n")
    (home / "run/tokens").chmod(0o600)
    assert token_for(near()) == "shed_server"
    assert token_for(near(2)) is None
    keep(home / ".shed/tokens", parse("http://localhost:1"), "shed_kept")
    assert token_for(near()) == "shed_kept"
    monkeypatch.setenv("SHED_TOKEN", "shed_env")
    assert token_for(near()) == "shed_env"
    own = near()
    own.token = "shed_own"
    assert token_for(own) == "shed_own"


def test_the_unix_socket_and_ssh_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """They know their user in another way."""
    monkeypatch.setenv("SHED_TOKEN", "shed_env")
    assert authorization(Address(path="/x")) is None
    assert authorization(parse("ssh://lab")) is None
    assert authorization(near()) == "Bearer shed_env"


@pytest.mark.parametrize("host", ["lab.example", "10.0.0.1", "127.0.0.1.evil.example", "0.0.0.0"])
def test_a_token_does_not_go_over_a_network(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """HTTP keeps nothing secret."""
    monkeypatch.setenv("SHED_TOKEN", "shed_env")
    with pytest.raises(UsageError) as caught:
        token_for(Address(host=host, port=1))
    assert caught.value.code == "UNSAFE_TOKEN"
    assert "ssh://" in (caught.value.hint or "")
    assert "shed_env" not in str(caught.value)


@pytest.mark.root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_token_does_not_go_to_another_user(monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily) -> None:
    """Who took the port of a server or a tunnel that is down, waits for it in vain."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    port = free_port()
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"server = socket.create_server(({'::' if family == socket.AF_INET6 else '127.0.0.1'!r}, {port}), "
        f"family={int(family)})\n"
        "print('listening', flush=True)\n"
        "sys.stdin.read()\n"
    )
    monkeypatch.setenv("SHED_TOKEN", "shed_env")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        with pytest.raises(UsageError, match="user 65534 listens there"):
            token_for(near(port))
        process.communicate("")
    with socket.create_server(("127.0.0.1", port)):
        assert token_for(near(port)) == "shed_env"


@pytest.mark.root
def test_another_users_port_of_the_same_number_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another loopback address; on all of them it is."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    program = (
        "import encodings.idna, os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "server = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        "print('listening', flush=True)\n"
        "sys.stdin.read()\n"
    )
    monkeypatch.setenv("SHED_TOKEN", "shed_env")
    for there, refused in (("127.0.0.2", False), ("0.0.0.0", True)):
        port = free_port()
        command = [sys.executable, "-c", program, there, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            if refused:
                with pytest.raises(UsageError, match="user 65534 listens there"):
                    token_for(near(port))
            else:
                assert token_for(near(port)) == "shed_env"
            process.communicate("")


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_file_that_others_can_read_is_refused(home: Path, mode: int) -> None:
    """Whoever could read it has the token."""
    keep(home / ".shed/tokens", near(), "shed_kept")
    (home / ".shed/tokens").chmod(mode)
    with pytest.raises(UsageError, match="others can read or write"):
        token_for(near())


def test_what_is_kept_can_be_replaced_and_removed(home: Path) -> None:
    """One line for each server, whatever it is called."""
    path = home / ".shed/tokens"
    keep(path, near(), None)
    assert not path.exists()
    keep(path, near(), "shed_one")
    keep(path, near(2), "shed_other")
    keep(path, parse("http://localhost:1"), "shed_two")
    assert token_for(near()) == "shed_two"
    assert path.stat().st_mode & 0o777 == 0o600
    keep(path, near(), None)
    assert token_for(near()) is None
    assert token_for(near(2)) == "shed_other"


@pytest.mark.parametrize("token", ["two words", "line\nend", "ümlaut", "tab\t"])
def test_what_is_no_token_is_not_sent(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """It would be another header, or none at all."""
    monkeypatch.setenv("SHED_TOKEN", token)
    with pytest.raises(UsageError, match="is none"):
        token_for(near())
