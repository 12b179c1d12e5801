"""The SSH port: a listening socket from the server's start on, and behind it nothing until somebody connects."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from shed.config.server import DEFAULT_SSH_PORT, Settings
from shed.errors import ConflictError, ShedError, StorageError, UsageError
from shed.fsutil import atomic_write
from shed.server.audit import Audit
from shed.server.failures import explain
from shed.server.listen import BACKLOG
from shed.sheds.manager import Manager

if TYPE_CHECKING:
    from shed.server.ssh.clients import Clients

log = logging.getLogger(__name__)
REMEMBERED = "ssh_port"
"""The file in the data folder with the port of the last time, when none is configured."""
_MOST_DIGITS = 16


class Front:
    """The SSH front of a server: `listen`, then `open`, in the end `close`."""

    def __init__(self, data: Path, settings: Settings, manager: Manager, audit: Audit) -> None:
        self._data = data
        self._settings = settings
        self._manager = manager
        self._audit = audit
        self._socket: socket.socket | None = None
        self._service: Clients | None = None
        self._starting: asyncio.Task[None] | None = None
        self.off: str | None = None
        """Why there is no SSH front, when there is none."""

    @property
    def port(self) -> int | None:
        """The port, None when there is no SSH front."""
        return None if self._socket is None else int(self._socket.getsockname()[1])

    def listen(self) -> None:
        """Take the port.

        Raises `ConflictError` (PORT_IN_USE), `UsageError` for one that was asked for.  When none was, it is the one of
        the last time, at first the usual one; where that is in use, by another user's server for example, a free one is
        taken and remembered.
        """
        host, wanted = self._settings.ssh_bind_address, self._settings.ssh_port
        if wanted == 0:
            self.off = "ssh_port is 0"
            return
        if wanted is not None:
            self._socket = _listener(host, wanted)
            return
        try:
            self._socket = self._some_listener(host)
        except ShedError as error:
            self.off = error.message
            log.warning("no SSH front: %s", error.message)

    def _some_listener(self, host: str) -> socket.socket:
        """Return a listener on the port of the last time if that is free, else on another one.  Raises `ShedError`."""
        path = self._data / REMEMBERED
        with contextlib.suppress(OSError, ValueError, ConflictError):
            return _listener(host, int(path.read_bytes()[:_MOST_DIGITS]))
        try:
            found = _listener(host, DEFAULT_SSH_PORT)
        except ConflictError:
            found = _listener(host, 0)
            log.warning("port %d is in use: the SSH front has port %d", DEFAULT_SSH_PORT, found.getsockname()[1])
        try:
            atomic_write(path, f"{found.getsockname()[1]}\n", mode=0o600)
        except StorageError as error:
            log.warning("the port of the SSH front is not remembered: %s", error)
        return found

    def open(self) -> None:
        """Wait for the first connection."""
        if self._socket is not None:
            self._socket.setblocking(False)
            asyncio.get_running_loop().add_reader(self._socket, self._somebody_came)

    async def close(self) -> None:
        """Hang up, and give the port back."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._service is not None:
            await self._service.close()
        self._socket.close()

    def _somebody_came(self) -> None:
        assert self._socket is not None
        asyncio.get_running_loop().remove_reader(self._socket)
        self._starting = asyncio.create_task(self._start(self._socket))

    async def _start(self, listener: socket.socket) -> None:
        try:
            self._service = await asyncio.to_thread(_service, self._data, self._settings, self._manager, self._audit)
        except Exception as error:  # noqa: BLE001  explain() logs what is a bug
            self.off = f"it cannot start: {explain(error).message}"
            log.error("no SSH front: %s", self.off)
            listener.close()
            self._socket = None
            return
        self._service.serve(listener)


def _service(data: Path, settings: Settings, manager: Manager, audit: Audit) -> Clients:
    from shed.server.ssh.clients import Clients  # noqa: PLC0415  see the package
    from shed.server.ssh.hostkey import private_key  # noqa: PLC0415

    return Clients(private_key(data), data, settings, manager, audit)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6()
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"port {port} on {host} is in use", code="PORT_IN_USE", hint="choose another one as ssh_port"
            ) from None
        raise UsageError(
            f"cannot listen for SSH on {host}:{port}: {error.strerror}", hint="see ssh_port and ssh.bind_address"
        ) from None
