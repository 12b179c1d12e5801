"""Several servers: which one a command works on.  Real servers with fake VMs, one of them behind an `ssh` of the test's
own.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.servers.fake_server import fake_server
from support.vms.machine import command_line
from support.waiting import wait_until

SHED = [sys.executable, "-m", "shed.cli.main"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5B1vYw4q0yqkzT1mZ1gBzrvhp3fN0B2bGkPz8mXk0Q"


class Home:
    """A user with a configuration of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {
            **os.environ,
            "HOME": str(root),
            "SHED_RUNTIME_DIR": str(root / "run"),
            "SHED_DATA_DIR": str(root / "data"),
        }
        self.env.pop("SHED_SERVER", None)
        self.state = root / ".shed/config.state.json"

    def shed(self, *words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `shed`."""
        done = subprocess.run(
            [*SHED, *words], env=self.env, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done

    def names(self, server: str) -> list[str]:
        """Return the sheds of a server."""
        return self.shed("-s", server, "ls", "-q").stdout.split()

    def seen(self) -> dict[str, str]:
        """Return on which server each shed was seen, as commands noted it."""
        return {name: entry["server"] for name, entry in json.loads(self.state.read_text())["sheds"].items()}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A user with the servers ``one``, the default, and ``two``."""
    for name in ("one", "two", "home"):
        (tmp_path / name).mkdir()
    home = Home(tmp_path / "home")
    with fake_server(tmp_path / "one"), fake_server(tmp_path / "two"):
        for name in ("one", "two"):
            home.shed("server", "add", f"unix://{tmp_path}/{name}/run/shed.sock", "-n", name)
        yield home


def test_servers_are_kept_by_name(home: Home) -> None:
    """Added, listed, made the default, removed; the sheds on them stay."""
    listed = json.loads(home.shed("server", "list", "--json").stdout)
    assert [(server["name"], server["default"]) for server in listed] == [
        ("local", False),
        ("one", True),
        ("two", False),
    ]
    home.shed("create", "dev")
    assert home.shed("server", "set-default", "two").stdout == "two is the default server\n"
    assert home.shed("ls", "-q").stdout == ""
    home.shed("server", "remove", "two")
    assert home.shed("server", "list").stdout.splitlines()[1].startswith("*  local")
    assert home.names("one") == ["dev"]


def test_a_server_that_does_not_answer_is_not_added(home: Home, tmp_path: Path) -> None:
    """Unless it is said that it need not; people are told how servers elsewhere are reached."""
    before = home.state.read_text()
    failed = home.shed("server", "add", "localhost", "-p", "1", code=1)
    assert "ssh://localhost" in failed.stderr
    assert home.state.read_text() == before
    home.shed("server", "add", f"unix://{tmp_path}/none/shed.sock", "-n", "later", "--no-check")
    assert "later" in home.shed("server", "list").stdout


@pytest.mark.parametrize("name", ["..", "../..", "/", "."])
def test_no_name_leads_out_of_the_configuration(home: Home, name: str) -> None:
    """A name is a key in a file, and nothing on the disk is called by it."""
    before = sorted(home.root.rglob("*"))
    home.shed("server", "remove", name, code=2)
    assert sorted(home.root.rglob("*")) == before


@pytest.fixture
def front() -> Iterator[tuple[str, list[str]]]:
    """A server on TCP that says that it has an SSH front; yields its port and its host key, which can be changed."""
    keys = [KEY]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(
                {"host_key": keys[0]} if "ssh-host-key" in self.path else {"name": "x", "ssh_port": 2022}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_address[1]), keys
        server.shutdown()
        thread.join()


def test_the_key_of_the_front_is_pinned(home: Home, front: tuple[str, list[str]]) -> None:
    """And another one is refused later, until it is said to be right."""
    port, keys = front
    words = ("server", "add", "127.0.0.1", "-p", port, "-n", "front")
    assert json.loads(home.shed(*words, "--json").stdout)["host_key_pinned"] is True
    pinned = home.state.with_name("known_hosts")
    assert f"[127.0.0.1]:2022 {KEY}\n" in pinned.read_text()
    keys[0] = KEY.replace("Xk0Q", "Xk0R")
    assert "HOST_KEY_CHANGED" in home.shed(*words, "--json", code=1).stderr
    assert KEY in pinned.read_text()
    home.shed(*words, "--replace-key")
    assert keys[0] in pinned.read_text()


def test_a_shed_is_found_on_the_server_that_has_it(home: Home) -> None:
    """Also when nothing, or the wrong thing, is remembered; and what is remembered is put right."""
    home.shed("-s", "two", "create", "dev")
    assert home.seen() == {"dev": "two"}
    home.state.write_text(home.state.read_text().replace('"server": "two"', '"server": "one"'))
    assert home.shed("exec", "dev", "--", "echo", "hello").stdout == "hello\n"
    assert home.seen() == {"dev": "two"}
    home.state.write_text(home.state.read_text().replace('"dev":', '"other":'))
    home.shed("stop", "dev")
    assert home.shed("exec", "dev", "--", "echo", "hello").stdout == "hello\n"
    assert home.shed("logs", "dev").stdout
    missing = home.shed("exec", "nope", "--", "true", code=125)
    assert "no server has a shed 'nope'" in missing.stderr
    home.shed("-s", "two", "ls")
    assert home.seen() == {"dev": "two"}  # `other` was seen there, and is not


def test_a_named_server_wins_over_what_is_remembered(home: Home) -> None:
    """The wrong server's shed must never be deleted."""
    for server in ("one", "two"):
        home.shed("-s", server, "create", "dev")
    home.shed("-s", "one", "delete", "dev", "--force")  # it was seen last on two
    assert (home.names("one"), home.names("two")) == ([], ["dev"])
    home.shed("-s", "one", "delete", "dev", "--force", code=1)
    home.env["SHED_SERVER"] = "one"
    home.shed("delete", "dev", "--force", code=1)
    assert home.names("two") == ["dev"]


def test_nothing_is_deleted_on_a_guess(home: Home) -> None:
    """What is remembered must be confirmed; where it is nowhere, or in two places, nothing is."""
    for server in ("one", "two"):
        home.shed("-s", server, "create", "dev")
    home.shed("server", "set-default", "local")
    home.state.write_text(home.state.read_text().replace('"dev":', '"gone":'))
    home.shed("-s", "local", "server", "start", code=0)
    try:
        both = home.shed("delete", "dev", "--force", code=2)
        assert "one and two both have a shed 'dev'" in both.stderr
        assert (home.names("one"), home.names("two")) == (["dev"], ["dev"])
        assert "no server has a shed 'gone'" in home.shed("delete", "gone", "--force", code=1).stderr
        assert home.shed("-s", "two", "delete", "dev", "--force").stdout == "deleted dev on two\n"
        assert home.shed("delete", "dev", "--force").stdout == "deleted dev on one\n"
    finally:
        home.shed("server", "stop")


def test_all_servers_are_listed_at_once(home: Home, tmp_path: Path) -> None:
    """One refuses, one accepts and says nothing: both are named with the reason, and the others are listed."""
    home.shed("-s", "two", "create", "dev")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        home.shed("server", "add", "127.0.0.1", "-p", str(silent.getsockname()[1]), "-n", "hangs", "--no-check")
        home.shed("server", "add", f"unix://{tmp_path}/none.sock", "-n", "off", "--no-check")
        with ThreadPoolExecutor() as pool:  # each waits for the one that says nothing
            listed = [pool.submit(home.shed, "list", "--all", *words) for words in ((), ("--json",))]
        done = listed[0].result()
        assert done.stdout.splitlines()[1].split()[:3] == ["two", "dev", "running"]
        assert "hangs is down: " in done.stderr
        assert "within 5 s" in done.stderr
        assert "off is down: no server listens" in done.stderr
        assert "local" not in done.stderr
    wire = json.loads(listed[1].result().stdout)
    assert [(shed["name"], shed["server"]) for shed in wire["sheds"]] == [("dev", "two")]
    assert [(down["server"], down["code"]) for down in wire["down"]] == [
        ("hangs", "TIMEOUT"),
        ("off", "SERVER_NOT_RUNNING"),
    ]


def test_a_server_behind_ssh(home: Home, tmp_path: Path) -> None:
    """Every command works over it: requests, commands with both streams, and their ends.  `ssh` runs what it is told at
    the other end.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    fake_ssh = programs / "ssh"
    far = tmp_path / "two"
    fake_ssh.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nwhile [ "$1" != -- ]; do shift; done\nshift 2\n'
        f'[ "$*" = "shed server dial-stdio" ] || exit 9\nexport SHED_RUNTIME_DIR={far}/run SHED_DATA_DIR={far}/data '
        f"HOME={far}\n"
        f"exec {sys.executable} -m shed.cli.main server dial-stdio\n"
    )
    fake_ssh.chmod(0o755)
    home.env["PATH"] = f"{programs}:{home.env['PATH']}"
    home.shed("server", "add", "ssh://me@far.example:23", "--default")
    assert (tmp_path / "asked").read_text().splitlines()[0] == "-T -p 23 -- me@far.example shed server dial-stdio"
    home.shed("create", "dev")
    done = home.shed("exec", "dev", "--", "sh", "-c", "cat; echo err >&2; exit 3", stdin="in", code=3)
    assert (done.stdout, done.stderr) == ("in", "err\n")
    assert home.names("two") == ["dev"]
    with subprocess.Popen(
        [*SHED, "-s", "far", "forward", "dev", ":10"], env=home.env, stdout=subprocess.PIPE, text=True
    ) as forward:
        assert forward.stdout is not None
        port = int(forward.stdout.readline().split()[2].rpartition(":")[2])
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                assert sock.recv(1) == b""  # a program that ends first is no reset
        finally:
            forward.terminate()
        assert forward.wait(60) == 0
    fake_ssh.write_text("#!/bin/sh\necho 'ssh: no route' >&2\nexit 255\n")
    failed = home.shed("ls", code=1)
    assert "ssh: no route" in failed.stderr
    assert "far.example shed server dial-stdio" in failed.stderr
    fake_ssh.write_text("#!/bin/sh\necho Welcome\nexec cat\n")
    assert "startup file" in home.shed("ls", code=1).stderr
    fake_ssh.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 1000\n")
    assert "no answer within" in home.shed("ls", "--all").stderr  # a pipe: its end is that of everybody who holds it
    left = Path("/proc", (tmp_path / "pid").read_text().strip())
    wait_until(lambda: not command_line(left))
