"""QEMU's monitor (QMP): commands in, answers out, over the Unix socket in the state folder.  Source: QEMU, docs/interop/qmp-spec.txt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from shed.backends.qemu import process

_CHUNK = 65536


class MonitorError(Exception):
    """QEMU refused a command, or ended before it answered."""


class Monitor:
    """A session; `connected` makes one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._received = b""

    async def execute(self, command: str, **arguments: object) -> Any:
        """Do `command` and return its answer.  Raises `MonitorError`."""
        return await self._ask(command, arguments, [])

    async def lend(self, name: str, descriptor: int) -> None:
        """Give QEMU a copy of an open file, to be called ``fd:NAME``.  Raises `MonitorError`."""
        await self._ask("getfd", {"fdname": name}, [descriptor])

    async def _ask(self, command: str, arguments: dict[str, object], descriptors: list[int]) -> Any:
        request = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        try:
            if descriptors:
                socket.send_fds(self._sock, [request], descriptors)  # a request always has room: each waits for the answer before
            else:
                await self._loop.sock_sendall(self._sock, request)
            while True:
                answer = json.loads(await self._line())
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise MonitorError(f"{command}: {answer['error'].get('desc')}")  # anything else is an event
        except (OSError, ValueError) as error:
            raise MonitorError(f"{command}: {error}") from error

    async def greeting(self) -> None:
        """Begin the session.  It says nothing of the machine yet: a thread of its own sends the greeting, the machine answers commands."""
        try:
            await self._line()
        except OSError as error:
            raise MonitorError(str(error)) from error
        await self.execute("qmp_capabilities")

    async def _line(self) -> bytes:
        while b"\n" not in self._received:
            data = await self._loop.sock_recv(self._sock, _CHUNK)
            if not data:
                raise ConnectionError("QEMU has ended")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line


@contextlib.asynccontextmanager
async def connected(state_dir: Path) -> AsyncIterator[Monitor]:
    """Yield a session with the QEMU of `state_dir` once its machine is set up; who waits limits the time.  Raises `MonitorError`."""
    with socket.socket(socket.AF_UNIX) as sock, process.reachable(state_dir, process.MONITOR_SOCKET) as path:
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
        except OSError as error:
            raise MonitorError(str(error)) from error
        monitor = Monitor(sock)
        await monitor.greeting()
        yield monitor
