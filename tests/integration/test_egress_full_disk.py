"""The relay when the disk of its log is full: it goes on, counts what is missing, and the doctor tells."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.checks import Status
from shed.config.paths import Paths
from shed.egress import decisions
from shed.egress.netdfiles import DECISIONS
from shed.server.doctor.host import Host
from shed.server.doctor.network import egress_log
from support.servers.netlab import Lab, lab
from support.waiting import wait_until

pytestmark = pytest.mark.root
PUBLIC = "93.184.216.34"
KNOCK = """
import socket
for _ in range(60):
    with socket.socket() as sock:
        sock.settimeout(30)
        sock.connect(("8.8.8.8", 80))
        sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        assert b"403" in sock.recv(1000)
"""
FETCH = """
import urllib.request
print(urllib.request.urlopen("http://www.example.com/hello", timeout=30).read().decode())
"""


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    disk = tmp_path / "data" / "logs"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def net(tmp_path: Path, logs: Path) -> Iterator[Lab]:
    """A lab whose relay logs there."""
    (tmp_path / "run").mkdir()
    with lab(tmp_path / "run") as made:
        made.netd.kill()
        made.netd.wait()
        made.netd = made.start_program("-m shed.egress.netd", logs=logs)
        made.names({"www.example.com": [PUBLIC]})
        made.open()
        made.rule({"allow": "www.example.com"})
        yield made


def test_a_full_disk_ends_no_connection(net: Lab, logs: Path, tmp_path: Path) -> None:
    """What does not fit is counted; when there is room again, the log goes on."""
    ballast = logs / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    net.python(KNOCK)
    counts = net.do({"do": "counts"})
    assert counts["left_out"]["dev"] > 0
    assert net.python(FETCH) == "hello\n\n"
    host = Host(Paths(tmp_path / "data", net.folder))
    (told,) = egress_log(host)
    assert (told.status, told.hint) == (Status.WARN, "see what it tries: shed egress log dev")
    assert f"{net.do({'do': 'counts'})['left_out']['dev']} of them of dev" in told.detail
    ballast.unlink()
    net.python(FETCH)
    wait_until(lambda: decisions.last(logs / DECISIONS, "dev", 1), what="the log goes on")
    assert decisions.last(logs / DECISIONS, "dev", 1)[0]["name"] == "www.example.com"


def test_a_log_that_is_well(net: Lab, tmp_path: Path) -> None:
    """The doctor says how large it is and who writes most; without a relay it says that, and starts none."""
    net.python(KNOCK)
    host = Host(Paths(tmp_path / "data", net.folder))
    (told,) = egress_log(host)
    assert told.status is Status.PASS
    assert "since the relay began, most is from dev: " in told.detail
    net.netd.kill()
    net.netd.wait()
    (told,) = egress_log(host)
    assert told.detail.endswith("the relay does not run")
