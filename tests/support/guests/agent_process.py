"""The agent's services as an ordinary process, for tests: everything of the agent but the machine around it.

Started as ``python -I -S agent_process.py SOURCE SOCKET_FD STATE_JSON``.  Its port to the host is a listening Unix
socket: a connection is a host that came, its end a host that hung up, just as on a virtio-serial port.
"""

import os
import sys
import time
from contextlib import suppress

sys.path.insert(0, sys.argv[1])

from shed.guest import main, mux, state, users, wirejson
from shed.guest.loop import Loop, Watch

HEAVY = {
    "asyncio",
    "ctypes",
    "dataclasses",
    "enum",
    "json",
    "pathlib",
    "re",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "typing",
}


class SocketPort:
    """`shed.guest.transport.Port` over connections to a listening socket, one after the other."""

    def __init__(self, loop: Loop, fd: int) -> None:
        import _socket

        self._loop = loop
        self._listener = _socket.socket(fileno=fd)
        self._incoming = loop.watch(fd)
        self._host: Watch | None = None

    async def read(self) -> memoryview:
        """Return the host's bytes; empty when it hung up, or when none is there."""
        if self._host is None:
            return memoryview(b"")
        try:
            data = await self._host.read(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._host.close()
            self._host = None
        return memoryview(data)

    def write_now(self, data: memoryview) -> int:
        """Send what the host takes at once."""
        return self._host.write_now(data) if self._host is not None else 0

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send to the host that is there, or to the next one; what a host does not take any more is lost."""
        while self._host is None:
            try:
                self._host = self._loop.watch(self._listener._accept()[0])  # type: ignore[attr-defined]
            except BlockingIOError:
                await self._incoming.readable.wait()
        with suppress(BrokenPipeError, ConnectionResetError):
            await self._host.write(data)


os.set_inheritable(int(sys.argv[2]), False)
loop = Loop()
shed = state.State()
settings = wirejson.loads(sys.argv[3].encode())
if settings:
    shed.phase = state.READY
    shed.user = users.find_user(settings.get("user") or str(os.getuid()))
    shed.env = settings.get("env", {})
    shed.folders = settings.get("folders", ["/"])
    if "patience" in settings:
        from shed.guest import exec as commands

        commands._PATIENCE = settings["patience"]
loop.reap_children(adopted=True)
loop.spawn(mux.serve_port(loop, SocketPort(loop, int(sys.argv[2])), main.services(loop, shed), main.hello), name="port")
heavy = sorted(HEAVY & set(sys.modules))
if heavy:
    sys.exit(f"imported before hello: {heavy}")
os.write(1, f"ready {time.monotonic()}\n".encode())
loop.run()
