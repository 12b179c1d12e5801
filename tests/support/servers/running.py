"""A server process on the fake backend, and ways to talk to it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from typing import IO, Any

from support.servers.world import World
from support.waiting import wait_until


class Running:
    """A server process, and ways to talk to it."""

    def __init__(self, world: World, *arguments: str, log: IO[bytes] | None = None) -> None:
        """Start one; `arguments` are those of `support.servers.server_process`.

        Its log goes to `log`, by default to the stderr of this process.
        """
        self.world = world
        self.socket = world.paths.socket
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.servers.server_process", str(world.paths.data.parent), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        wait_until(self._is_up, what="the server listens")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}"
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def connect(self) -> socket.socket:
        """Return a socket connected to the server."""
        folder = os.open(self.socket.parent, os.O_RDONLY)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        try:
            client.connect(f"/proc/self/fd/{folder}/{self.socket.name}")
        except BaseException:
            client.close()
            raise
        finally:
            os.close(folder)
        return client

    def request(self, method: str, target: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
        """Send one request and return status and body."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def secret(self) -> str:
        """Return the server's own token; it listens on TCP."""
        return (self.world.paths.data / "token").read_text().strip()

    def audited(self) -> list[dict[str, Any]]:
        """Return the records of the audit log."""
        return [json.loads(line) for line in (self.world.paths.logs / "audit.log").read_text().splitlines()]

    def upgrade(self, method: str, target: str, protocol: str, early: bytes = b"") -> tuple[socket.socket, IO[bytes]]:
        """Turn a connection into a stream; `early` goes out with the request.  Return it with a reader behind the
        answer's head.
        """
        client = self.connect()
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        client.sendall(head.encode() + early)
        reader = client.makefile("rb")
        assert reader.readline().startswith(b"HTTP/1.1 101 ")
        while reader.readline() != b"\r\n":
            pass
        return client, reader

    def stand_still(self) -> None:
        """Wait until the server reached the phase it was told to stop in."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"standing still\n"

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, if it still runs, and return the exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end and return the exit status."""
        status = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status
