"""The sockets that the server listens on, and the locks that make it the only one.

A lock file decides which server serves, not the socket: a socket file that is left by a killed server is removed by the
next holder of the lock, and never while somebody listens at it, server or not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from shed.config.values import loopback
from shed.errors import ConflictError, StorageError, UsageError
from shed.fsutil import locked

BACKLOG = 128
PREDECESSOR_TIMEOUT = 5.0
"""Seconds for a server that ends to undo what it was doing."""
_POLL = 0.05
_PEERCRED = struct.Struct("3i")
"""struct ucred: process, user, group; unix(7)."""


@contextlib.contextmanager
def only_server(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of `folder`.  A server that is just ending has a few seconds to let it go.

    Raises `ConflictError` (SERVER_RUNNING) when another server keeps it.  `what` names what it would serve.
    """
    deadline = time.monotonic() + PREDECESSOR_TIMEOUT
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(folder / "server.lock", wait=False))
                break
            except ConflictError:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"another server uses {what}", code="SERVER_RUNNING", hint="stop it first: shed server stop"
                    ) from None
            time.sleep(_POLL)
        yield


@contextlib.contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """Yield a socket that listens at `path` for this user alone; its file goes away at the end.

    The folder is made with mode 0700; one that exists must be this user's, and nobody else may write to it.
    """
    _private_folder(path.parent)
    with only_server(path.parent, str(path)):
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(listener, path)
            listener.listen(BACKLOG)
            yield listener
        finally:
            listener.close()
            path.unlink(missing_ok=True)


def tcp_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the loopback address `host`.

    Raises `UsageError` for others, `ConflictError` for a port in use.
    """
    address = loopback(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"port {port} on {host} is in use", code="PORT_IN_USE", hint="choose another one with --listen"
            ) from None
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another address with --listen"
        ) from None


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``[V6]:PORT`` or ``PORT``.  Raises `UsageError`."""
    host, _, port = text.rpartition(":")
    if port.isascii() and port.isdigit() and int(port) < 65536:
        return (host.removeprefix("[").removesuffix("]") or "127.0.0.1"), int(port)
    raise UsageError(f"{text!r} is not an address to listen on", hint="write 127.0.0.1:8080")


def _private_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StorageError(
            f"cannot make the folder {folder}: {error.strerror}", hint="set SHED_RUNTIME_DIR to a folder of yours"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UsageError(
            f"{folder} is not a folder that you alone can write to, so the server's socket cannot be there",
            code="UNSAFE_SOCKET_DIR",
            hint="set SHED_RUNTIME_DIR to a folder of yours with mode 0700",
        )


def _remove_stale(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConflictError(
                f"{path} is in the way: it is not a socket", hint="move it away, or choose another place with --socket"
            )
        owner = _listener_at(path)
        if owner is not None:
            raise ConflictError(
                f"{owner} listens at {path} already",
                code="SOCKET_IN_USE",
                hint="end it, or choose another place with --socket",
            )
        path.unlink()


def _listener_at(path: Path) -> str | None:
    """Say who listens at the socket `path`; None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, _folder(path) as folder:
        probe.setblocking(False)
        try:
            probe.connect(f"{folder}/{path.name}")
        except ConnectionRefusedError:
            return None
        except OSError:  # a full queue, or a socket of another kind: somebody's in any case
            return "something"
        process = _PEERCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))[0]
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return f"process {process}"
    return f"process {process} ({name})"


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[str]:
    """Yield a short name of the directory of `path`, as the path itself may be too long for a socket address."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}"
    finally:
        os.close(folder)


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind with mode 0600."""
    before = os.umask(0o177)
    try:
        with _folder(path) as folder:
            listener.bind(f"{folder}/{path.name}")
    except OSError as error:
        raise StorageError(
            f"cannot make the socket {path}: {error.strerror}", hint="choose another place with --socket"
        ) from error
    finally:
        os.umask(before)
