"""Where the server listens, who else may, and what a browser may not."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shed.errors import ConflictError, ShedError, UsageError
from shed.server import listen
from shed.server.listen import only_server, parse_listen, tcp_listener, unix_listener
from support.servers.running import Running
from support.servers.world import World


def test_only_this_user_reaches_the_socket(quiet: Running) -> None:
    """Mode 0600 in a folder of mode 0700."""
    assert quiet.socket.stat().st_mode & 0o777 == 0o600
    assert quiet.socket.parent.stat().st_mode & 0o777 == 0o700


def test_the_socket_goes_with_its_server(server: Running) -> None:
    """A server that ends leaves no socket."""
    server.end()
    assert not server.socket.exists()


def test_a_second_server_is_refused_and_the_first_goes_on(server: Running) -> None:
    """One clear error; the socket is still the first one's."""
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "support.servers.server_process", str(server.world.paths.data.parent)]
    second = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert second.returncode == 1
    assert "another server uses" in second.stderr
    assert server.request("GET", "/api/info")[0] == 200


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock decides, not the file."""
    path = tmp_path / "run/shed.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with unix_listener(path) as listener:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            listener.accept()[0].close()
        monkeypatch.setattr(listen, "PREDECESSOR_TIMEOUT", 0.1)
        with pytest.raises(ConflictError, match="another server"), unix_listener(path):
            pass
    assert not path.exists()


@pytest.mark.parametrize("busy", [False, True])
def test_a_socket_that_somebody_listens_at_is_not_replaced(tmp_path: Path, *, busy: bool) -> None:
    """Who holds no lock of ours may still be in use: the error says who it is, unless it does not even accept."""
    path = tmp_path / "shed.sock"
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as stranger, socket.socket(socket.AF_UNIX) as client:
        stranger.bind(str(path))
        stranger.listen(0)
        if busy:
            client.connect(str(path))
        with (
            pytest.raises(ConflictError, match="something" if busy else rf"process {os.getpid()} \(\w+") as caught,
            unix_listener(path),
        ):
            pass
        assert caught.value.code == "SOCKET_IN_USE"
        stranger.accept()[0].close()
        with socket.socket(socket.AF_UNIX) as another:
            another.connect(str(path))


def test_a_server_that_ends_is_waited_for(tmp_path: Path) -> None:
    """Its lock goes last, a moment after its socket."""
    world = World(tmp_path).prepare()
    with contextlib.ExitStack() as predecessor:
        predecessor.enter_context(only_server(world.paths.data, "it"))
        began = time.monotonic()
        threading.Timer(1.5, predecessor.close).start()
        running = Running(world)
        assert time.monotonic() - began > 1
    assert running.request("GET", "/api/info")[0] == 200
    running.end()


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    """Data folders may be deep."""
    path = tmp_path / ("d" * 100) / ("e" * 100) / "shed.sock"
    with unix_listener(path):
        assert path.is_socket()


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """Somebody else could put another socket there."""
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError) as caught, unix_listener(tmp_path / "shed.sock"):
        pass
    assert caught.value.code == "UNSAFE_SOCKET_DIR"


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    """Only sockets are."""
    tmp_path.chmod(0o700)
    (tmp_path / "shed.sock").write_text("precious")
    with pytest.raises(ConflictError), unix_listener(tmp_path / "shed.sock"):
        pass
    assert (tmp_path / "shed.sock").read_text() == "precious"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost.example.com"])
def test_only_loopback_addresses_are_listened_on(host: str) -> None:
    """Without authentication, nothing else is safe."""
    with pytest.raises(UsageError):
        tcp_listener(host, 0)


def test_a_port_in_use_is_named() -> None:
    """The error says which one."""
    with tcp_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConflictError, match=str(port)) as caught:
            tcp_listener("127.0.0.1", port)
        assert caught.value.code == "PORT_IN_USE"


@pytest.mark.parametrize(
    ("text", "parsed"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("8080", ("127.0.0.1", 8080))]
)
def test_addresses_are_parsed(text: str, parsed: tuple[str, int]) -> None:
    """With and without a host."""
    assert parse_listen(text) == parsed


@pytest.mark.parametrize("text", ["", "host", "127.0.0.1:", "1:x", "127.0.0.1:65536"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """With a hint."""
    with pytest.raises(ShedError) as caught:
        parse_listen(text)
    assert caught.value.hint
