"""The memory of the relay's process, which has the values of secrets, and what it gets of the server's."""

import subprocess
import sys
from pathlib import Path

import pytest

from shed.egress.process import NetdProcess
from support.vms.machine import command_line

_PR_GET_DUMPABLE = 3
PROGRAM = f"""
import ctypes
from shed.egress.netd import keep_private
libc = ctypes.CDLL(None)
before = libc.prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0)
keep_private()
print(before, libc.prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0), open("/proc/self/stat").read().split()[0] != "")
"""


def test_it_is_in_no_core_file() -> None:
    """The kernel writes none for it, and lets no other process of its user read it; its own files in /proc stay."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0 True\n"


@pytest.mark.root
def test_it_gets_none_of_the_servers_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a server may have some; what names and certificates are looked up by goes along."""
    monkeypatch.setenv("API_TOKEN", "s3cret-of-the-server")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    (tmp_path / "logs").mkdir()
    netd = NetdProcess(tmp_path, tmp_path / "logs")
    (watch,) = netd.watch()
    with watch:
        (process,) = [path for path in Path("/proc").glob("[0-9]*") if f"\0{tmp_path}\0".encode() in command_line(path)]
        environment = (process / "environ").read_bytes()
    assert b"s3cret" not in environment
    assert b"SSL_CERT_FILE=" in environment
