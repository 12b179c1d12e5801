"""QEMU's monitor (QMP): commands in, answers out, over the Unix socket in the state folder.

Source: QEMU, docs/interop/qmp-spec.txt.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from shed.backends.qemu import process
from shed.untrusted import load_object, told

_CHUNK = 65536
_MOST_LINE = 256 * 1024
"""Bytes of one answer; those to what is asked here have less than a thousand."""


class MonitorError(Exception):
    """QEMU refused a command, or ended before it answered."""


class Monitor:
    """A session; `connected` makes one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._numbers = itertools.count()

    async def execute(self, command: str, **arguments: object) -> dict[str, Any]:
        """Do `command` and return its answer, an object.  Raises `MonitorError`."""
        found = await self._ask(command, arguments, [])
        return found if isinstance(found, dict) else {}

    async def listed(self, command: str) -> list[dict[str, Any]]:
        """Do `command` and return its answer, a list of objects.  Raises `MonitorError`."""
        found = await self._ask(command, {}, [])
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    async def lend(self, name: str, descriptor: int) -> None:
        """Give QEMU a copy of an open file, to be called ``fd:NAME``.  Raises `MonitorError`."""
        await self._ask("getfd", {"fdname": name}, [descriptor])

    async def give(self, descriptor: int) -> str:
        """Give QEMU a copy of an open file; return the path by which it opens it.  Raises `MonitorError`."""
        return f"/dev/fdset/{int((await self._ask('add-fd', {}, [descriptor]))['fdset-id'])}"

    async def _ask(self, command: str, arguments: dict[str, object], descriptors: list[int]) -> Any:
        number = next(self._numbers)
        request = json.dumps({"execute": command, "arguments": arguments, "id": number}).encode() + b"\n"
        try:
            if descriptors:
                socket.send_fds(
                    self._sock, [request], descriptors
                )  # a request always has room: each waits for the answer before
            else:
                await self._loop.sock_sendall(self._sock, request)
            while True:
                answer = load_object(await self._line(), most=_MOST_LINE)
                if answer.get("id", number) != number:  # of a command whose asker has given up
                    continue
                found, error = answer.get("return"), answer.get("error")
                if found is not None:
                    return found
                if error is not None:  # anything else is an event
                    raise MonitorError(f"{command}: {told(error.get('desc') if isinstance(error, dict) else error)}")
        except (OSError, ValueError) as problem:
            raise MonitorError(f"{command}: {problem}") from problem

    async def greeting(self) -> None:
        """Begin the session.

        This says nothing about the machine: a thread of its own sends the greeting, while the machine answers commands.
        """
        try:
            await self._line()
        except OSError as error:
            raise MonitorError(str(error)) from error
        await self.execute("qmp_capabilities")

    async def _line(self) -> bytes:
        while b"\n" not in self._received:
            if len(self._received) > _MOST_LINE:
                raise ConnectionError("QEMU does not speak QMP")
            data = await self._loop.sock_recv(self._sock, _CHUNK)
            if not data:
                raise ConnectionError("QEMU has ended")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line


@contextlib.asynccontextmanager
async def connected(state_dir: Path) -> AsyncIterator[Monitor]:
    """Yield a session with the QEMU of `state_dir` once its machine is set up; who waits limits the time.

    Raises `MonitorError`.
    """
    with socket.socket(socket.AF_UNIX) as sock, process.reachable(state_dir, process.MONITOR_SOCKET) as path:
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
        except OSError as error:
            raise MonitorError(str(error)) from error
        monitor = Monitor(sock)
        await monitor.greeting()
        yield monitor
