"""What the relay's process can still reach, once it has confined itself: tried by a process that does the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import shed
from support.guests.prisoner import PYTHON

PROGRAM = """
import ctypes, errno, os, socket, subprocess, sys
from pathlib import Path
from shed.egress.confine import confine
logs, secret, service, port, other = Path(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:6])
Path(secret).read_text()
confine(logs)
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
def tries(name, what):
    try:
        what()
        print(name, "works")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error))
def read(path):
    if not Path(path).read_bytes():
        raise OSError(errno.ENODATA, "empty")
tries("secret", lambda: read(secret))
tries("shadow", lambda: read("/etc/shadow"))
tries("home", lambda: os.listdir(os.path.expanduser("~root")))
tries("tmp", lambda: open("/tmp/shed-test-made", "w"))
tries("etc", lambda: open("/etc/shed-test-made", "w"))
tries("other", lambda: os.kill(other, 0))
tries("look", lambda: read(f"/proc/{other}/environ"))
tries("spawn", lambda: subprocess.run(["/bin/true"]))
tries("exec", lambda: os.execv("/bin/true", ["true"]))
tries("unix", lambda: socket.socket(socket.AF_UNIX).connect(service))
tries("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tries("mount", lambda: call(165, b"none", b"/", b"tmpfs", 0, None))
tries("unshare", lambda: call(272, 0x10000000))
tries("ptrace", lambda: call(101, 16, other, 0, 0))
tries("root", lambda: os.setuid(0 if os.getuid() else 1))
# what it lives on
tries("names", lambda: socket.getaddrinfo("localhost", 80))
tries("connects", lambda: socket.create_connection(("127.0.0.1", port)))
tries("resolv.conf", lambda: open("/etc/hosts").close())
(logs / "log").write_text("x")
tries("rotates", lambda: (logs / "log").rename(logs / "log.1"))
import fractions, ssl
tries("trusts", ssl.create_default_context)
"""
WITHOUT_LANDLOCK = """
import errno, sys
from pathlib import Path
from shed.egress import confine
logs, other = map(Path, sys.argv[1:])
confine.landlock.restrict = lambda *words, **more: None
confine.confine(logs)
(logs / "log").write_text("x")
(logs / "log").rename(logs / "log.1")
for place in (other / "made", Path("/etc/shed-test-made"), Path("/root/shed-test-made")):
    try:
        place.write_text("x")
        print("written")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
LIVES_ON = {"names", "connects", "resolv.conf", "rotates", "trusts"}


def test_what_a_relay_reaches(tmp_path: Path) -> None:
    """No file but the host's programs and settings, no socket of a service here, no other process; its work goes on."""
    (tmp_path / "logs").mkdir()
    secret = tmp_path / "token"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "docker.sock"))
        service.listen()
        words = [tmp_path / "logs", secret, tmp_path / "docker.sock", listener.getsockname()[1], os.getpid()]
        done = subprocess.run(
            [PYTHON, "-c", PROGRAM, *map(str, words)],
            env={"PYTHONPATH": str(Path(shed.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert {name: said for name, said in found.items() if name in LIVES_ON} == dict.fromkeys(LIVES_ON, "works")
    unwritten = "EROFS" if os.geteuid() == 0 else "EACCES"
    assert {name: said for name, said in found.items() if name not in LIVES_ON} == {
        "secret": "EACCES", "shadow": "ENODATA" if os.geteuid() == 0 else "EACCES", "home": "EACCES", "tmp": unwritten,
        "etc": unwritten, "other": "ENOSYS", "look": "EACCES", "spawn": "EPERM", "exec": "ENOSYS",
        "unix": "EAFNOSUPPORT", "packet": "EAFNOSUPPORT", "mount": "ENOSYS", "unshare": "ENOSYS", "ptrace": "ENOSYS",
        "root": "ENOSYS",
    }  # fmt: skip


@pytest.mark.root
def test_a_relay_of_root_writes_nothing_but_logs_without_landlock(tmp_path: Path) -> None:
    """Root owns what is root's, even without capabilities."""
    (tmp_path / "logs").mkdir()
    done = subprocess.run(
        [PYTHON, "-c", WITHOUT_LANDLOCK, str(tmp_path / "logs"), str(tmp_path)],
        env={"PYTHONPATH": str(Path(shed.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.stdout.split() == ["EROFS"] * 3, done.stderr
    assert (tmp_path / "logs/log.1").read_text() == "x"


@pytest.mark.root
def test_it_is_the_same_for_an_ordinary_users_relay() -> None:
    """Who has no capability to begin with."""
    user = 54323
    everything = "-all,+dac_read_search"  # the interpreter may be in root's home
    with tempfile.TemporaryDirectory() as folder:  # others may not look into those of pytest
        os.chown(folder, user, user)
        command = [
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *(f"--inh-caps={everything}", f"--ambient-caps={everything}", f"--bounding-set={everything}"),
            *(sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder}/base"),
            *("-m", "not root", __file__),
        ]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
