"""A real guest's ports: a client of the host gets in, the guest gets out to one port of the host and no other."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.client.sync.shed import RUNTIME
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.ports import free_port
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
PYTHON = (
    'r=/run/shed-runtime; for l in $r/lib/ld-linux-*; do exec $l --library-path $r/lib $r/bin/python3 -ISBc "$0" '
    '"$@"; done'
)
"""The agent's own interpreter, which is in every image."""
SERVE = """
import socket, threading
listener = socket.create_server(("127.0.0.1", 8000), backlog=64)
def serve(client):
    with client:
        said = client.recv(65536)
        body = b"from inside " + said.split()[1]
        client.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
FETCH = f"{RUNTIME} wget -q -T 20 -O -"


class Web:
    """The shed web, with a port of the host that leads into it, and a port of the host that it reaches."""

    def __init__(self, machine: Machine, inward: int, outward: int, http: int) -> None:
        self.machine, self.inward, self.outward, self.http = machine, inward, outward, http

    def serve(self) -> None:
        """Have a program in the guest listen on its own loopback alone."""
        words = [RUNTIME, "sh", "-c", f"{PYTHON} < /dev/null > /dev/null 2>&1 &", SERVE]
        self.machine.shed("exec", "web", "--", RUNTIME, "sh", "-c", '"$@"', "sh", *words)
        wait_until(lambda: self.fetch("/up") == "from inside /up", what="the guest's program answers")

    def fetch(self, path: str, host: str = "127.0.0.1") -> str:
        """Return what a client of the host gets from the shed, or why not."""
        try:
            with urllib.request.urlopen(f"http://{host}:{self.inward}{path}", timeout=60) as answer:
                return bytes(answer.read()).decode()
        except OSError as error:
            return f"no: {error}"

    def sh(self, words: str) -> tuple[int, str]:
        """Run words by the guest's shell; return the exit code and what was printed."""
        done = self.machine.try_shed("exec", "web", "--", RUNTIME, "sh", "-c", f"{words} 2>&1")
        return done.returncode, done.stdout.decode()

    def ports(self) -> list[bool]:
        """Say of each published port whether it is open."""
        return [one["open"] for one in json.loads(self.machine.shed("ports", "web", "--json"))["published"]]


@contextlib.contextmanager
def answering(text: str) -> Iterator[int]:
    """Serve `text` on the host's loopback; yield the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def web(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The shed web, which serves on its loopback; the host has a service of its own."""
    http_port, inward = free_port(), free_port()
    machine = Machine(tmp_path_factory.mktemp("ports"), way=way, settings=f"http_port: {http_port}\n")
    copy_store(small_store, machine.data / "images")
    with answering("from the host") as outward:
        machine.shed(
            "create", "web", "--image", "busybox", "--egress", "offline",
            "-p", f"{inward}:8000", "--host-port", f"{outward}:15432",
        )  # fmt: skip
        made = Web(machine, inward, outward, http_port)
        made.serve()
        yield made
        machine.end()


def test_a_published_port_leads_to_the_guests_loopback(web: Web) -> None:
    """By both of the host's loopback addresses, many at once; what does not listen is reset."""
    assert web.fetch("/one") == "from inside /one"
    if Path("/proc/net/if_inet6").exists():
        assert web.fetch("/two", "[::1]") == "from inside /two"
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(web.fetch("/many"))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["from inside /many"] * 40
    found = json.loads(web.machine.shed("ports", "web", "-p", "81", "--json"))["published"][-1]
    with pytest.raises(OSError, match="reset by peer"):
        urllib.request.urlopen(f"http://127.0.0.1:{found['port']}/", timeout=60)
    shown = web.machine.shed("ports", "web").splitlines()
    assert [line.split(maxsplit=2)[1:] for line in shown if "web:81" in line] == [
        ["web:81", "open; nothing listens there  -"]
    ]
    web.machine.shed("ports", "web", "--unpublish", str(found["port"]))


def test_what_listens_in_the_guest_is_shown(web: Web) -> None:
    """Published or not, with its addresses; what is published has no row of its own for that."""
    web.sh(f"{RUNTIME} nc -l -p 8123 < /dev/null > /dev/null 2>&1 &")

    def listening() -> dict[int, list[str]]:
        found = json.loads(web.machine.shed("ports", "web", "--json"))["listening"]
        return {one["port"]: one["addresses"] for one in found}

    wait_until(lambda: 8123 in listening(), what="nc listens")
    assert listening()[8000] == ["127.0.0.1"]
    shown = web.machine.shed("ports", "web")
    assert "web:8123" in shown
    assert "; not published" in shown
    assert "shed open web 8123" in shown
    assert shown.count("web:8000") == 1
    assert "  http://127.0.0.1:" in shown


def test_the_guest_reaches_that_port_of_the_host(web: Web) -> None:
    """Although its rules allow nothing else at all."""
    assert web.sh(f"{FETCH} http://host.shed.internal:15432/") == (0, "from the host")


def test_the_guest_reaches_nothing_else_of_the_host(web: Web) -> None:
    """No other port by that name, no address of the host, not the server, and not what leads into a shed."""
    web.machine.shed("egress", "set", "web", "internet")
    for there in (
        f"host.shed.internal:{web.outward}",
        f"host.shed.internal:{web.http}",
        f"host.shed.internal:{web.inward}",
        "host.shed.internal:22",
        f"10.0.2.2:{web.outward}",
        "10.0.2.2:15432",
        f"localhost.localdomain:{web.outward}",
    ):
        code, said = web.sh(f"{FETCH} http://{there}/")
        assert code != 0, (there, said)
    for port, why in ((web.http, "this server's own"), (web.inward, "no shed reaches another")):
        done = web.machine.try_shed("ports", "web", "--host-port", f"{port}:4000")
        assert done.returncode == 1
        assert why in done.stderr.decode()


def test_ports_outlive_the_server_and_the_shed(web: Web) -> None:
    """The next server publishes them again, and so does the next start of the shed."""
    web.machine.shed("server", "stop")
    assert web.fetch("/gone").startswith("no: ")
    web.machine.shed("server", "start")
    wait_until(lambda: web.ports() == [True], what="the port is published again")
    assert web.fetch("/again") == "from inside /again"
    assert web.sh(f"{FETCH} http://host.shed.internal:15432/") == (0, "from the host")
    web.machine.shed("stop", "web")
    assert web.ports() == [False]
    assert web.fetch("/gone").startswith("no: ")
    web.machine.shed("start", "web")
    web.serve()
    assert web.sh(f"{FETCH} http://host.shed.internal:15432/") == (0, "from the host")
    web.machine.shed("ports", "web", "--no-host-port", str(web.outward))
    assert web.sh(f"{FETCH} http://host.shed.internal:15432/")[0] != 0
