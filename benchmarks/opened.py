"""Connections for which the relay opens TLS beside those that it passes on as they are.

Client and server are in network namespaces of a lab, without a VM, so that the relay's part is not lost in an emulated
guest's; it takes root.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Sample, Subject, compare, show
from support.servers.netlab import lab
from support.servers.openedshed import PLACEHOLDER, Shed

_REQUESTS, _RUNS, _HELD = 200, 5, 50
_MIB = 200
_CLIENT = """
import http.client, ssl, sys, time
host, trusted, kind, count, key = sys.argv[1:]
context = ssl.create_default_context(cafile=trusted)
def get(connection, path):
    connection.request("GET", path, headers={"X-Key": key})
    answer = connection.getresponse()
    while answer.read(1 << 20):
        pass
connection = http.client.HTTPSConnection(host, context=context)
get(connection, "/hello")
start = time.perf_counter()
if kind == "download":
    get(connection, f"/big?megabytes={count}")
for _ in range(int(count) if kind != "download" else 0):
    if kind == "new":
        connection = http.client.HTTPSConnection(host, context=context)
    get(connection, "/hello")
print((time.perf_counter() - start) / (1 if kind == "download" else int(count) / 1000))
"""
_HOLD = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
held = [http.client.HTTPSConnection("api.example.com", context=context) for _ in range(int(sys.argv[2]))]
for connection in held:
    connection.request("GET", "/hello")
    connection.getresponse().read()
print("held", flush=True)
input()
"""


def main() -> None:
    """Compare small requests and a download, and print what open connections take."""
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as net:
        before = _resident(net.netd.pid)
        shed = Shed(net)
        trusted = Path(folder) / "trusted.pem"
        trusted.write_text(shed.origin.certificate + shed.authority.certificate)
        for title, kind, count in (
            ("one small request, kept connection (a thousand)", "kept", _REQUESTS),
            ("one small request, new connection (a thousand)", "new", _REQUESTS),
            (f"download of {_MIB} MiB", "download", _MIB),
        ):
            words = [str(trusted), kind, str(count)]
            opened = _subject(shed, "api.example.com", *words, PLACEHOLDER)
            passed = _subject(shed, "plain.example.com", *words, "x")
            show(title, "opened", "passed on", compare(opened, passed, runs=_RUNS))
        idle = _resident(net.netd.pid)
        with net.talk_in_guest(sys.executable, "-uc", _HOLD, str(trusted), str(_HELD)) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            assert child.stdout.readline() == "held\n"
            held = _resident(net.netd.pid)
            child.stdin.write("\n")
        print(
            f"the relay: {before:.1f} MiB, {idle:.1f} when TLS was opened, {held:.1f} with {_HELD} opened connections",
            flush=True,
        )


def _subject(shed: Shed, *words: str) -> Subject:
    def subject() -> Sample:
        return Sample(float(shed.python(_CLIENT, *words).removesuffix("\n[0]")))

    return subject


def _resident(pid: int) -> float:
    """Return the MiB that a process has in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024
