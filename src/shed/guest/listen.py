"""Port 1029: the guest listens for the host.

    LISTEN tcp PORT      answered OK PORT; on both loopback addresses.  0 is any free port.
    LISTEN unix          answered OK PATH: a socket for the shed's user alone
    ACCEPT NUMBER        answered OK; then the raw bytes of that connection

A line each; what cannot be done is answered ERR TEXT.  On a stream that listens, each connection that came is told by a
line: NUMBER, and for TCP the address and port that it came from.  The host opens another stream to accept it.  The end
of the stream ends the listening.
"""

from __future__ import annotations

import _socket
import errno
import os

from shed.guest.mux import StreamCutError
from shed.guest.proxy import first_line, relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop, Watch
    from shed.guest.mux import Stream
    from shed.guest.state import State
    from shed.guest.tasks import Task

_FOLDER = "/run/shed-ssh"
_BACKLOG = 64
_MOST_WAITING = 64
"""Connections of one listener that came and were not accepted; more are hung up on."""
_PATIENCE = 20.0
"""Seconds in which the host accepts what came."""
_LOOPBACKS = ((_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1"))


async def serve(loop: Loop, state: State, stream: Stream) -> None:
    """Do what the first line of the stream says."""
    line, early = await first_line(stream)
    words = line.decode(errors="replace").split(" ")
    try:
        if words[0] == "LISTEN":
            await _listen(loop, state, stream, words[1:])
        elif words[0] == "ACCEPT" and len(words) == 2 and words[1].isdecimal():
            await _accept(loop, state, stream, int(words[1]), early)
        else:
            await stream.write(b"ERR expected LISTEN or ACCEPT\n")
    except OSError as error:
        await stream.write(f"ERR {os.strerror(error.errno or errno.EIO)}\n".encode())


async def _accept(loop: Loop, state: State, stream: Stream, number: int, early: bytes) -> None:
    connection = state.arrived.pop(number, None)
    if connection is None:
        await stream.write(b"ERR no such connection\n")
        return
    await relay(loop, connection, stream, early)


async def _listen(loop: Loop, state: State, stream: Stream, words: list[str]) -> None:
    path = ""
    if words == ["unix"]:
        path = f"{_FOLDER}/{os.urandom(8).hex()}"
        sockets, told = [_listen_unix(path, state)], path
    elif len(words) == 2 and words[0] == "tcp" and words[1].isdecimal() and int(words[1]) < 65536:
        sockets = _listen_tcp(int(words[1]))
        told = str(sockets[0].getsockname()[1])
    else:
        await stream.write(b"ERR expected tcp and a port, or unix\n")
        return
    listener = _Listener(loop, state, stream)
    try:
        await stream.write(f"OK {told}\n".encode())
        listener.start(sockets)
        while await stream.read():
            pass
    except StreamCutError:
        pass
    finally:
        listener.close()
        for sock in sockets:
            sock.close()
        if path:
            os.unlink(path)


def _listen_tcp(port: int) -> list[_socket.socket]:
    """Return listening sockets; IPv6 need not be there.  Raises `OSError`."""
    sockets: list[_socket.socket] = []
    for family, address in _LOOPBACKS:
        try:
            sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(_BACKLOG)
        except OSError:
            if not sockets:
                raise
            continue
        sockets.append(sock)
        port = sock.getsockname()[1]
    return sockets


def _listen_unix(path: str, state: State) -> _socket.socket:
    """Return a socket that listens at `path`, which nobody but the user and root can connect to.  Raises `OSError`."""
    try:
        os.mkdir(_FOLDER, 0o755)
    except FileExistsError:
        pass
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    sock.bind(path)
    os.chmod(path, 0o600)
    if os.geteuid() == 0:
        os.chown(path, state.user.uid, state.user.gid)
    sock.listen(_BACKLOG)
    return sock


class _Listener:
    """Takes what comes to some sockets, and tells the host."""

    def __init__(self, loop: Loop, state: State, stream: Stream) -> None:
        self._loop = loop
        self._state = state
        self._stream = stream
        self._tasks: list[Task] = []
        self._watches: list[Watch] = []
        self._numbers: set[int] = set()

    def start(self, sockets: list[_socket.socket]) -> None:
        """Begin."""
        for sock in sockets:
            watch = self._loop.watch(os.dup(sock.fileno()))
            self._watches.append(watch)
            self._tasks.append(self._loop.spawn(self._take(sock, watch), name="listener"))

    def close(self) -> None:
        """Take no more, and hang up on what was not accepted."""
        for task in self._tasks:
            task.cancel()
        for watch in self._watches:
            watch.close()
        for number in list(self._numbers):
            self._drop(number)

    async def _take(self, sock: _socket.socket, watch: Watch) -> None:
        while watch.fd >= 0:
            try:
                fd, address = sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001  what socket.accept is made of
            except BlockingIOError:
                await watch.readable.wait()
            except OSError:
                await self._loop.sleep(
                    0.5
                )  # it was gone again, or there is no descriptor left: others wait in the queue
            else:
                await self._arrived(self._loop.watch(fd), address)

    async def _arrived(self, connection: Watch, address: object) -> None:
        self._numbers &= self._state.arrived.keys()
        if len(self._numbers) >= _MOST_WAITING:
            connection.close()
            return
        self._state.arrivals += 1
        number = self._state.arrivals
        self._state.arrived[number] = connection
        self._numbers.add(number)
        self._loop.call_later(_PATIENCE, lambda: self._drop(number))
        origin = f" {address[0]} {address[1]}" if isinstance(address, tuple) else ""
        try:
            await self._stream.write(f"{number}{origin}\n".encode())
        except StreamCutError:
            self._drop(number)

    def _drop(self, number: int) -> None:
        connection = self._state.arrived.pop(number, None)
        if connection is not None:
            connection.close()
