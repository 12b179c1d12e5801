"""Copies bytes between two sockets without looking at them, in the event loop.

The kernel moves them from a socket into a pipe and on into the other socket (splice(2)): they are never copied into
this process.  A pipe is taken when bytes come and put back when they have gone, so that connections that are silent
hold none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable

PIPE = 256 * 1024
"""Bytes of a pipe, as far as the kernel grants it."""
_CHUNK = 1 << 20
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_MOST_SPARE = 64
_TURNS = 8
"""How often a direction moves bytes before others get their turn."""


class Pipes:
    """Pipes that wait for use."""

    def __init__(self) -> None:
        self._spare: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        """Return an empty pipe.  Raises `OSError`."""
        if self._spare:
            return self._spare.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a user's pipes may have their limit together
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
        return pipe

    def put_back(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Take a pipe back; one that is not `empty` is closed."""
        if empty and len(self._spare) < _MOST_SPARE:
            self._spare.append(pipe)
        else:
            for end in pipe:
                os.close(end)

    def close(self) -> None:
        """Close those that wait."""
        while self._spare:
            self.put_back(self._spare.pop(), empty=False)


class _Direction:
    """One way of a connection: from `source` to `target`."""

    def __init__(
        self, source: socket.socket, target: socket.socket, pipes: Pipes, tell: Callable[[OSError | None], None]
    ) -> None:
        """`tell` is called once, when all has been moved, or with the error that ended it."""
        self._loop = asyncio.get_running_loop()
        self._source, self._target, self._pipes, self._tell = source, target, pipes, tell
        self._in, self._out = source.fileno(), target.fileno()
        """For the event loop alone: of a socket that it does not know yet it makes a description, by two calls."""
        self._pipe: tuple[int, int] | None = None
        self._held = 0
        """Bytes in the pipe."""
        self._ended = False
        """Whether the source has sent its last byte."""
        self.moved = 0
        self.stopped = False

    def start(self) -> None:
        """Move what comes from now on."""
        self._loop.add_reader(self._in, self._turn)

    def stop(self) -> None:
        """Move nothing more."""
        if self.stopped:
            return
        self.stopped = True
        self._loop.remove_reader(self._in)
        self._loop.remove_writer(self._out)
        if self._pipe is not None:
            self._pipes.put_back(self._pipe, empty=not self._held)
            self._pipe = None

    def _turn(self) -> None:
        try:
            for _ in range(_TURNS):
                if not self._move():
                    return
        except OSError as error:
            self.stop()
            self._tell(error)

    def _move(self) -> bool:
        """Fill the pipe and empty it, as far as the sockets let us; say whether there may be more to do at once."""
        if self._pipe is None:
            self._pipe = self._pipes.take()
        filled = False
        if not self._ended and self._held < PIPE:
            try:
                count = os.splice(self._source.fileno(), self._pipe[1], _CHUNK, flags=_FLAGS)
                self._held += count
                self._ended, filled = not count, True
            except BlockingIOError:
                pass
        try:
            while self._held:
                count = os.splice(self._pipe[0], self._target.fileno(), self._held, flags=_FLAGS)
                self._held -= count
                self.moved += count
        except BlockingIOError:
            self._loop.remove_reader(self._in)
            self._loop.add_writer(self._out, self._drain)
            return False
        if self._ended:
            self.stop()
            with contextlib.suppress(OSError):
                self._target.shutdown(socket.SHUT_WR)
            self._tell(None)
            return False
        if not filled:
            self._pipes.put_back(self._pipe, empty=True)
            self._pipe = None
        return filled

    def _drain(self) -> None:
        """The target takes bytes again."""
        self._loop.remove_writer(self._out)
        if not self._ended:
            self._loop.add_reader(self._in, self._turn)
        self._turn()


class Pump:
    """Both ways of a connection between the sockets `inside` and `outside`, which it does not close."""

    def __init__(self, inside: socket.socket, outside: socket.socket, pipes: Pipes) -> None:
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._up = _Direction(inside, outside, pipes, self._told)
        self._down = _Direction(outside, inside, pipes, self._told)

    @property
    def sent(self) -> int:
        """Bytes that went out of the shed."""
        return self._up.moved

    @property
    def received(self) -> int:
        """Bytes that came into the shed."""
        return self._down.moved

    async def run(self) -> None:
        """Copy until both sides have sent their last byte.  Raises `OSError` when the connection breaks."""
        try:
            self._up.start()
            self._down.start()
            await self._over
        finally:
            self._up.stop()
            self._down.stop()

    def _told(self, error: OSError | None) -> None:
        if self._over.done():
            return
        if error is not None:
            self._over.set_exception(error)
        elif self._up.stopped and self._down.stopped:
            self._over.set_result(None)


def is_gone(error: OSError) -> bool:
    """Say whether `error` only means that the other side has left."""
    return error.errno in {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ETIMEDOUT}
