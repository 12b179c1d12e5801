"""`shed forward` and `shed tunnels`: real processes, a real server, fake VMs (port 7 echoes, 9 pours)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.fake_server import fake_server
from support.waiting import wait_until

SHED = [sys.executable, "-m", "shed.cli.main"]
PATIENCE = 60


class User:
    """Runs `shed` against one server with the shed ``dev``."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self.root = root
        self.env = env

    def shed(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `shed` to its end."""
        done = subprocess.run([*SHED, *words], env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """Run a command that forwards; yield it with its first local port."""
        pipe = subprocess.PIPE
        with subprocess.Popen([*SHED, *words], env=self.env, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("Forwarding from 127.0.0.1:"), line + (
                    process.stderr.read() if process.stderr else ""
                )
                yield process, int(line.split()[2].rpartition(":")[2])
            finally:
                process.kill()

    def open(self) -> list[dict[str, object]]:
        """Return the tunnels that are open."""
        found = json.loads(self.shed("tunnels", "list", "--json").stdout)
        assert isinstance(found, list)
        return found


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """A user; no tunnel is left."""
    with fake_server(tmp_path) as env:
        user = User(tmp_path, env)
        user.shed("create", "dev")
        yield user
        user.shed("tunnels", "stop", "--all")


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    """Connect to a local port."""
    return socket.create_connection((host, port), timeout=PATIENCE)


def echo(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether what is sent comes back, with the end behind it."""
    try:
        with connect(port, host) as sock:
            sock.sendall(b"ping")
            sock.shutdown(socket.SHUT_WR)
            return sock.makefile("rb").read() == b"ping"
    except OSError:  # whichever call meets the reset
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_forward_until_ctrl_c(user: User, number: int) -> None:
    """On both loopbacks; open connections, idle and busy, do not hold up its end, and are reset then."""
    with user.running("forward", "dev", ":7", ":9") as (process, port):
        assert echo(port)
        assert echo(port, "::1")
        with connect(port) as idle:
            idle.sendall(b"x")
            assert idle.recv(1) == b"x"
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
            with pytest.raises(ConnectionResetError):
                idle.recv(1)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_what_ends_in_the_shed_ends_here(user: User) -> None:
    """A VM that dies resets its connections; a port where nobody listens, and a shed that was stopped, too; each is
    said once.
    """
    with user.running("forward", "dev", ":7", ":9", ":8") as (process, port):
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        nobody = int(lines[3].split()[2].rpartition(":")[2])
        for _ in range(5):
            assert not echo(nobody)
        pid = json.loads(user.shed("list", "--json").stdout)[0]["pid"]
        with connect(port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        for _ in range(5):
            assert not echo(port)
        user.shed("start", "dev")
        assert echo(port)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert process.stderr is not None
        said = process.stderr.read().splitlines()
    assert said[0] == "port 8 of shed 'dev': connection refused"
    assert "shed 'dev' is not running" in said  # before that, a stream may be cut that was just being opened
    assert said[-1] == "port 7 of shed 'dev' works again"
    assert len(said) <= 5  # each change once


def test_a_slow_reader_costs_no_memory(user: User) -> None:
    """The forwarder takes from the shed what its client takes from it."""
    with user.running("forward", "dev", ":9") as (process, port), connect(port) as sock:
        assert sock.recv(1) == b"\0"
        statm = Path(f"/proc/{process.pid}/statm")
        before = int(statm.read_text().split()[1]) * 4096
        time.sleep(1)  # it takes nothing while the shed pours
        assert int(statm.read_text().split()[1]) * 4096 - before < 16 << 20
        left = 64 << 20
        while left > 0:
            left -= len(sock.recv(1 << 20))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["forward", "nope", "80"], 1, "there is no shed 'nope'"),
        (["forward", "dev", "99999"], 2, "'99999' is not a port"),
        (["forward", "dev"], 2, "PORT"),
        (["forward", "dev", "9300", "9300:80"], 2, "local port 9300 is there twice"),
        (["forward", "dev", "7", "--address", "192.0.2.1"], 2, "cannot listen on 192.0.2.1"),
        (
            ["forward", "dev", "7", "--address", "nowhere.invalid"],
            2,
            "cannot listen on nowhere.invalid port 7: Name or service",
        ),
        (["tunnels", "start", "dev", "-t", "9300", "-t", "9300:80"], 2, "local port 9300 is there twice"),
        (["tunnels", "start", "dev"], 1, "no profile 'default'"),
        (["tunnels", "start", "nope", "-t", "7"], 1, "there is no shed 'nope'"),
        (["tunnels", "stop"], 2, "--all"),
    ],
)
def test_mistakes(user: User, words: list[str], code: int, message: str) -> None:
    """One sentence, one hint."""
    error, hint = user.shed(*words, code=code).stderr.splitlines()[-2:]
    assert message in error
    assert hint.startswith("hint: ")


def test_a_port_in_use_is_one_clear_error(user: User) -> None:
    """In the foreground, and from the background too; nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words in (
            ["forward", "dev", f"{port}:7"],
            ["tunnels", "start", "dev", "-t", ":9", "-t", f"{port}:7", "-d"],
        ):
            failed = user.shed(*words, code=1)
            assert failed.stderr.startswith(f"error: port {port} on 127.0.0.1 is in use\nhint: ")
    assert user.open() == []
    user.shed("stop", "dev")
    assert "is not running" in user.shed("tunnels", "start", "dev", "-t", ":7", "-d", code=1).stderr


def test_tunnels_in_the_background(user: User) -> None:
    """They are open when the command returns, outlive its session, are listed, replaced and stopped."""
    (user.root / ".shed").mkdir(exist_ok=True)
    (user.root / ".shed/tunnels.yaml").write_text("profiles: {default: [':7']}\n")
    script = f"{' '.join(SHED)} tunnels start dev -d --json; kill -HUP 0"
    with subprocess.Popen(["sh", "-c", script], env=user.env, stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout is not None
        started = json.loads(shell.stdout.read())
    port = started["forwards"][0]["port"]
    assert echo(port)
    (listed,) = user.open()
    assert (listed["shed"], listed["server"], listed["pid"]) == ("dev", "local", started["pid"])
    assert Path(f"/proc/{started['pid']}/stat").read_text().rpartition(")")[2].split()[3] == str(
        started["pid"]
    )  # a session of its own
    assert "are open already" in user.shed("tunnels", "start", "dev", "-d", code=1).stderr
    user.shed("tunnels", "start", "dev", "-t", f"{port}:7", "-d", "--replace")
    assert echo(port)
    assert user.open()[0]["pid"] != started["pid"]
    assert user.shed("tunnels", "stop", "dev").stdout == "closed the tunnels to dev\n"
    assert user.open() == []
    url = f"unix://{user.env['SHED_RUNTIME_DIR']}/shed.sock"
    user.shed("-s", url, "tunnels", "start", "dev", "-t", ":7", "-d")
    assert user.open()[0]["server"] == url  # as it was named
    assert user.shed("-s", url, "tunnels", "stop", "dev").stdout == "closed the tunnels to dev\n"
    assert user.shed("tunnels", "stop", "--all").stdout == "no tunnels were open\n"


def test_a_server_that_restarts_is_waited_for(tmp_path: Path) -> None:
    """A connection that comes while it is away works once it is back; the log has a line for each change, not for each
    try.
    """
    with fake_server(tmp_path) as env, contextlib.ExitStack() as stack:
        user = User(tmp_path, env)
        user.shed("create", "dev")
        stack.callback(user.shed, "tunnels", "stop", "--all")
        port = json.loads(user.shed("tunnels", "start", "dev", "-t", ":7", "-d", "--json").stdout)["forwards"][0][
            "port"
        ]
        assert echo(port)
        user.shed("stop", "dev")
        for _ in range(20):
            assert not echo(port)
        user.shed("start", "dev")
        user.shed("server", "stop")
        with connect(port) as waiting:
            waiting.sendall(b"patient")
            waiting.shutdown(socket.SHUT_WR)
            # Another server on the same folders: it finds the VM that the first one left.
            words = [sys.executable, "-m", "support.servers.fake_server", str(tmp_path)]
            with subprocess.Popen(words, env={**env, "PYTHONPATH": str(Path(__file__).parents[1])}) as server:
                try:
                    assert waiting.makefile("rb").read() == b"patient"
                    log = next((tmp_path / ".shed/tunnels").glob("*.log")).read_text().splitlines()
                    assert [line.split(" ", 1)[1] for line in log[1:]] == [
                        "shed 'dev' is not running",
                        "port 7 of shed 'dev' works again",
                    ]
                    user.shed("tunnels", "stop", "dev")
                finally:
                    server.terminate()


def test_nobody_else_is_ever_signalled(user: User) -> None:
    """Whatever the files say: only the process that holds the lock is."""
    folder = user.root / ".shed/tunnels"
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        folder.mkdir(parents=True)
        (folder / "dev@local.lock").write_text(str(bystander.pid))
        (folder / "dev@local.json").write_text(json.dumps({"pid": bystander.pid, "forwards": []}))
        assert user.open() == []
        assert user.shed("tunnels", "stop", "--all").stdout == "no tunnels were open\n"
        user.shed("tunnels", "start", "dev", "-t", ":7", "-d", "--replace")
        (opened,) = user.open()
        os.kill(int(str(opened["pid"])), signal.SIGKILL)
        wait_until(lambda: user.open() == [])
        assert user.shed("tunnels", "stop", "dev").stdout == "no tunnels were open\n"
        assert bystander.poll() is None
        bystander.kill()
