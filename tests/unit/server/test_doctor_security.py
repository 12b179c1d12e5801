"""The checks of ``shed-server doctor --security``: each on a host that is closed, and on one that is open."""

import asyncio
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import asyncssh
import pytest

from shed.checks import Status
from shed.config.paths import Paths
from shed.egress.network import netns
from shed.server.doctor import network, security
from shed.server.doctor.host import Host
from shed.server.doctor.ssh import ssh_agents, ssh_port
from shed.server.main import main
from support.ports import free_port
from support.servers.doctor import found
from support.servers.running import Running
from support.servers.world import World, create


@pytest.fixture
def served(world: World) -> Iterator[Host]:
    """A host whose server runs, on TCP too."""
    port = free_port()
    (world.paths.data.parent / "port").write_text(str(port))
    (world.paths.data.parent / "ssh").write_text(f"ssh_port: {free_port()}\n")
    running = Running(world)
    assert running.request("GET", "/api/info")[0] == 200
    config = world.paths.data.parent / "server.yaml"
    config.write_text(f"http_port: {port}\n")
    yield Host(world.paths, config)
    running.end()


def test_a_server_as_it_should_be(served: Host) -> None:
    """Everything of it that can be tried is closed."""
    for name, check in (
        ("unix socket", security.unix_socket),
        ("tcp port", security.tcp_port),
        ("ssh port", ssh_port),
        ("secrets", security.secrets),
    ):
        row = found(served, check, name)
        assert row.status is Status.PASS, row
    assert "401" in found(served, security.tcp_port).detail
    assert found(served, security.audit_log).status is Status.PASS


def test_an_ssh_port_that_lets_everybody_in(served: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of 6aee119 did: the doctor gets in, and says so; one where nothing speaks SSH, and a server that does not
    run, are told.
    """
    told = {"ssh_port": 0}
    monkeypatch.setattr("shed.server.doctor.ssh.local.ask", lambda *_: told)

    class Open(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    async def serve(started: Queue[int], over: threading.Event) -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with asyncssh.listen("127.0.0.1", 0, server_factory=Open, server_host_keys=[key]) as server:
            started.put(server.get_port())
            await asyncio.to_thread(over.wait)

    started: Queue[int] = Queue()
    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(started, over)))
    thread.start()
    try:
        told["ssh_port"] = started.get(timeout=30)
        assert found(served, ssh_port).status is Status.FAIL
    finally:
        over.set()
        thread.join()
    told["ssh_port"] = free_port()
    assert found(served, ssh_port).status is Status.WARN
    monkeypatch.undo()
    assert found(Host(Paths(served.paths.data / "none", served.paths.data / "none")), ssh_port).status is Status.WARN


def test_locks_that_others_may_hold(served: Host) -> None:
    """A lock is held by whoever can open it: its folder is the fence, and its mode is another."""
    assert found(served, security.locks).status is Status.PASS
    served.paths.data.chmod(0o755)
    assert found(served, security.locks).status is Status.PASS
    (served.paths.data / "server.lock").chmod(0o644)
    row = found(served, security.locks)
    assert (row.status, str(served.paths.data / "server.lock") in row.detail) == (Status.FAIL, True)


async def test_sheds_that_use_an_agent_anywhere(world: World) -> None:
    """They are named; those with hosts are as they should be."""
    async with world.prepare().manager() as manager:
        try:
            await create(manager, "named", image="base", ssh_agent=["git.example.com", "@git-signing"])
            assert found(Host(world.paths), ssh_agents).status is Status.PASS
            await create(manager, "open", image="base", ssh_agent=["*"])
            row = found(Host(world.paths), ssh_agents)
            assert (row.status, row.hint) == (Status.WARN, "shed update open --ssh-agent HOST")
            assert "in open logs in at any host" in row.detail
        finally:
            world.kill_machines()


@pytest.mark.root
def test_what_leaves_a_shed_is_ruled(served: Host) -> None:
    """It is tried, by making a network namespace as sheds have."""
    row = found(served, security.guests_network)
    assert (row.status, row.detail) == (Status.PASS, "what leaves a shed is ruled; profiles by default: internet")


@pytest.mark.root
def test_sheds_without_a_network_are_told(served: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    monkeypatch.setattr(netns, "_PROGRAM", Path("/bin/false"))
    for check in (security.guests_network, network.sheds_network):
        row = found(served, check)
        assert row.status is Status.FAIL
        assert row.detail.startswith("sheds have no network: ")
        assert row.hint


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o770])
def test_a_socket_that_others_may_open(served: Host, mode: int) -> None:
    """The folder is the fence."""
    served.paths.run.chmod(mode)
    assert found(served, security.unix_socket).status is Status.FAIL


@pytest.mark.parametrize("name", ["token", "logs/audit.log", "secrets/key.json", "instances/dev/secrets.json"])
def test_a_secret_that_others_may_read(served: Host, name: str) -> None:
    """It is named, and so is what to do."""
    path = served.paths.data / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path.chmod(0o644)
    row = found(served, security.secrets)
    assert row.status is Status.FAIL
    assert name in row.detail
    assert "chmod 600" in row.hint


def test_a_port_that_answers_everybody(host: Host, tmp_path: Path) -> None:
    """As a server of an earlier version does."""

    class Open(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Open) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = tmp_path / "server.yaml"
        config.write_text(f"http_port: {server.server_address[1]}\n")
        row = found(Host(host.paths, config), security.tcp_port)
        server.shutdown()
        thread.join()
    assert row.status is Status.FAIL
    assert "200" in row.detail


def test_nothing_runs(host: Host, tmp_path: Path) -> None:
    """What cannot be tried is a warning, and no port is fine."""
    assert found(host, security.unix_socket).status is Status.WARN
    assert found(host, security.tcp_port).status is Status.PASS
    assert found(host, security.audit_log).status is Status.WARN
    config = tmp_path / "server.yaml"
    config.write_text(f"http_port: {free_port()}\n")
    assert found(Host(host.paths, config), security.tcp_port).status is Status.WARN


@pytest.mark.root
def test_another_user_is_tried(tmp_path: Path) -> None:
    """As root, the doctor becomes somebody else for a moment, and no more than that."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    private = tmp_path / "private"
    private.write_text("x")
    private.chmod(0o600)
    assert not security._as_nobody("open", private)
    assert security._as_nobody("open", Path("/etc/passwd"))
    assert os.geteuid() == 0


def test_the_command(served: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each row."""
    monkeypatch.setenv("SHED_DATA_DIR", str(served.paths.data))
    monkeypatch.setenv("SHED_RUNTIME_DIR", str(served.paths.run))
    assert main(["doctor", "--security", "--config", str(served.config)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 + len(security.CHECKS)
    assert any(line.startswith("tcp port ") and " PASS " in line for line in said)
