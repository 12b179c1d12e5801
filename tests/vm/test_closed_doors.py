"""From inside a real guest: the server's TCP port gives it nothing, and goes on serving others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed import Client, Shed
from shed.client.sync.shed import RUNTIME
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.ports import free_port
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
HOST = "10.0.2.2"
"""What a guest calls the machine that it is on."""
PYTHON = [
    "/run/shed-runtime/bin/busybox", "sh", "-c",
    ('r=/run/shed-runtime; for l in $r/lib/ld-linux-*; do exec $l --library-path $r/lib $r/bin/python3 -ISBc "$0" '
    '"$@"; done'),
]  # fmt: skip
"""The agent's own interpreter, which is in every image: the attacker has tools."""
FLOOD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = []
for number in range(1100):
    client = socket.socket()
    client.settimeout(20)
    try:
        client.connect((sys.argv[1], int(sys.argv[2])))
    except OSError:
        break
    held.append(client)
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def machine(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose server listens on TCP."""
    machine = Machine(tmp_path_factory.mktemp("doors"), way=way)
    copy_store(small_store, machine.data / "images")
    port = free_port()
    config = Path(machine.environment["HOME"], ".config/shed/server.yaml")
    config.write_text(f"http_port: {port}\n{config.read_text()}")
    machine.environment["PORT"] = str(port)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SHED_SERVER", "SHED_TOKEN"):
            patch.delenv(name, raising=False)
        for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "HOME"):
            patch.setenv(name, machine.environment[name])
        yield machine
    machine.end()


@pytest.fixture(scope="module")
def guest(machine: Machine) -> Shed:
    """The attacker's shed."""
    return Client().create("guest", image="busybox")


def ask(guest: Shed, port: str, request: str) -> str:
    """Send a request from the guest to the host's port, and return the status line of the answer."""
    said = guest.exec([RUNTIME, "nc", "-w", "20", HOST, port], stdin=request.encode(), user="root").text
    return said.splitlines()[0] if said else ""


def test_a_guest_gets_nothing_from_the_port(machine: Machine, guest: Shed, tmp_path: Path) -> None:
    """It does not even reach it, with a token either, whatever its rules allow."""
    port = machine.environment["PORT"]
    _, secret = Client().api.create_token("agent", right="admin")
    Client().api.set_egress_profile("all", {"rules": [{"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "127.0.0.1"}]})
    Client().api.set_shed_egress("guest", ["all"])
    body = json.dumps({"name": "evil", "image": "busybox", "local_dir": str(tmp_path)})
    head = f"Host: localhost\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n"
    refused = "HTTP/1.1 403 Forbidden"  # the relay's words, not the server's
    assert ask(guest, port, f"GET /api/sheds HTTP/1.1\r\n{head}\r\n") == refused
    assert ask(guest, port, f"POST /api/sheds HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}") == refused
    assert [shed.name for shed in Client().list()] == ["guest"]
    assert list(tmp_path.iterdir()) == []


def test_a_flood_from_a_guest_keeps_nobody_out(machine: Machine, guest: Shed) -> None:
    """1,100 silent connections: the server answered nobody, and filled its log with tracebacks."""
    port = machine.environment["PORT"]
    log = machine.data / "logs/server.log"
    before = log.stat().st_size
    command = [*machine.command, "exec", "--user", "root", "guest", "--", *PYTHON, FLOOD, HOST, port]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=machine.environment) as flood:
        assert flood.stdout is not None
        opened = flood.stdout.readline()
        assert opened.strip().isdigit(), flood.stderr.read() if flood.stderr else opened
        over_tcp = Client(f"http://127.0.0.1:{port}")
        assert [shed.name for shed in over_tcp.list()] == ["guest"]
        assert [shed.name for shed in Client().list()] == ["guest"]
        assert Client().get("guest").exec([RUNTIME, "echo", "here"], check=True).text.strip() == "here"
        flood.communicate(b"", timeout=120)
    said = log.read_bytes()[before:]
    assert b"Traceback" not in said
    assert len(said) < 64 * 1024
    assert int(opened) > 100, "the flood did not happen"
