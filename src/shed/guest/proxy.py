"""Port 1028: a stream becomes a TCP connection to a port of the guest's loopback.

The host sends ``CONNECT <port>``, and gets ``OK`` or ``ERR <text>``.
"""

from __future__ import annotations

import _socket
import errno
import os

from shed.guest.carry import Carrier
from shed.guest.mux import StreamCutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shed.guest.loop import Loop, Watch
    from shed.guest.mux import Stream

_LONGEST_LINE = 64
_DIAL_SECONDS = 10.0
_LINGER_NOT = b"\1\0\0\0\0\0\0\0"
"""struct linger {on, 0 s}: closing the socket sends a reset; socket(7)."""
_LOOPBACKS = ((_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1"))


async def serve(loop: Loop, stream: Stream) -> None:
    """Connect the stream to the port it asks for, until both sides have ended."""
    line, early = await first_line(stream)
    word, _, number = line.partition(b" ")
    if word != b"CONNECT" or not number.isdigit() or not 1 <= int(number) <= 65535:
        await stream.write(b"ERR expected CONNECT and a port from 1 to 65535\n")
        return
    connection = None
    failure = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    for family, address in _LOOPBACKS:
        try:
            connection = await _dial(loop, family, address, int(number))
            break
        except OSError as error:
            failure = error if family == _socket.AF_INET else failure
    if connection is None:
        await stream.write(f"ERR port {int(number)}: {os.strerror(failure.errno or errno.EIO)}\n".encode())
        return
    await relay(loop, connection, stream, early)


async def relay(loop: Loop, connection: Watch, stream: Stream, early: bytes) -> None:
    """Answer OK, and carry bytes between the stream and a connection until both sides have ended.

    `early` came already.
    """
    back = loop.spawn(_from_guest(connection, stream), name="proxy output")
    stream.gone.then(lambda: _reset(connection))
    try:
        await stream.write(b"OK\n")
        taken = await _to_guest(connection, stream, early)
        await back.done.wait()
        if not taken:
            stream.reset("the program has closed the connection")
    finally:
        back.cancel()
        connection.close()


async def first_line(stream: Stream) -> tuple[bytes, bytes]:
    """Return the first line without its end, and the bytes that came behind it."""
    received = bytearray()
    while b"\n" not in received and len(received) < _LONGEST_LINE:
        data = await stream.read()
        if not data:
            break
        received += data
    line, _, early = received.partition(b"\n")
    return bytes(line.rstrip(b"\r")), bytes(early)


async def _dial(loop: Loop, family: int, address: str, port: int) -> Watch:
    """Return a connection.  Raises `OSError`."""
    sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    error = sock.connect_ex((address, port))
    watch = loop.watch(sock.fileno())  # which owns the descriptor from here on
    try:
        if error == errno.EINPROGRESS:
            if not await watch.writable.wait(_DIAL_SECONDS):
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            error = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    except BaseException:
        sock.detach()
        watch.close()
        raise
    sock.detach()
    return watch


async def _to_guest(connection: Watch, stream: Stream, early: bytes) -> bool:
    """Carry what the client sends to its end; False when the program takes no more."""
    data: bytes | bytearray = early or await stream.read()
    try:
        while data:
            await connection.write(data)
            data = await stream.read()
    except OSError:
        stream.drain()  # what the program has sent before may still be on its way
        return False
    _shut_down(connection)
    return True


async def _from_guest(connection: Watch, stream: Stream) -> None:
    try:
        carrier = Carrier(connection, stream)
        while await carrier.read():
            await carrier.send()
    except StreamCutError:
        return
    except OSError as error:
        stream.reset(f"connection failed: {os.strerror(error.errno or errno.EIO)}")
        return
    stream.end()


def _shut_down(connection: Watch) -> None:
    """Tell the program that no more comes."""
    _with_socket(connection, lambda sock: sock.shutdown(_socket.SHUT_WR))


def _reset(connection: Watch) -> None:
    """Close the connection so that the program does not take it for a proper end."""
    _with_socket(connection, lambda sock: sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _LINGER_NOT))
    connection.close()


def _with_socket(connection: Watch, act: Callable[[_socket.socket], object]) -> None:
    """Do something with the socket that a watch owns, while it is open."""
    if connection.fd < 0:
        return
    sock = _socket.socket(fileno=connection.fd)
    try:
        act(sock)
    except OSError:
        pass  # it is gone already
    finally:
        sock.detach()
