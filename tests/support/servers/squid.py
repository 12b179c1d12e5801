"""A real squid in a lab's internet, set up as Debian does, and a host that has no other way out."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.servers.netlab import Lab

ADDRESS, PORT = "100.127.0.2", 3128
USER, PASSWORD = "worker", "s3cret-of-the-proxy"
_CONFIGURATION = """
http_port {address}:{port}
acl SSL_ports port 443
acl Safe_ports port 80 443 1025-65535
acl CONNECT method CONNECT
http_access deny !Safe_ports
http_access deny CONNECT !SSL_ports
http_access deny to_localhost
{access}
http_access deny all
hosts_file {folder}/hosts
dns_nameservers 127.0.0.1
cache deny all
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
pid_filename none
shutdown_lifetime 0 seconds
"""
_OPEN = "http_access allow all"
_AUTH = """
auth_param basic program /usr/lib/squid/basic_ncsa_auth {folder}/passwords
acl known proxy_auth REQUIRED
http_access allow known
"""
_START = """
import ctypes, socket, subprocess, sys, time
ends_with_us = lambda: ctypes.CDLL(None).prctl(1, 9)
squid = subprocess.Popen(["squid", "-N", "-f", sys.argv[1]], stderr=subprocess.DEVNULL, preexec_fn=ends_with_us)
while squid.poll() is None:
    try:
        socket.create_connection((sys.argv[2], int(sys.argv[3]))).close()
        print("ready", flush=True)
        break
    except OSError:
        time.sleep(0.05)
squid.wait()
"""


class Squid:
    """The proxy at `ADDRESS` and `PORT`; it alone knows names."""

    def __init__(self, net: Lab, folder: Path, *, auth: bool) -> None:
        self.folder = folder
        folder.chmod(0o755)
        access = _AUTH.format(folder=folder) if auth else _OPEN
        (folder / "squid.conf").write_text(
            _CONFIGURATION.format(address=ADDRESS, port=PORT, access=access, folder=folder)
        )
        hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True)
        (folder / "passwords").write_text(f"{USER}:{hashed.stdout}")
        for name in ("hosts", "access.log", "cache.log"):
            (folder / name).touch()
            shutil.chown(folder / name, "proxy")
        names = "93.184.216.34 www.example.com deb.example.com echo.example.com\n127.0.0.1 evil.example.com\n"
        (folder / "hosts").write_text(names)
        net.start_in_internet(sys.executable, "-c", _START, str(folder / "squid.conf"), ADDRESS, str(PORT))

    def requests(self) -> list[str]:
        """Return method and target of what it was asked."""
        lines = (self.folder / "access.log").read_text().splitlines()
        return [" ".join(line.split()[5:7]) for line in lines]


@contextlib.contextmanager
def squid(net: Lab, *, auth: bool) -> Iterator[Squid]:
    """Yield a squid; the lab's host reaches nothing but it."""
    folder = Path(tempfile.mkdtemp(prefix="squid-", dir="/tmp"))
    try:
        subprocess.run(["ip", "-n", net.host, "route", "del", "default"], check=False, capture_output=True)
        yield Squid(net, folder, auth=auth)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
