"""Standard input and output of a command, between its pipes or terminal and the client."""

from __future__ import annotations

import fcntl
import os
from _collections import deque  # type: ignore[import-not-found]
from _struct import pack

from shed.guest import protocol
from shed.guest.carry import Carrier, enlarge
from shed.guest.mux import StreamCutError
from shed.guest.tasks import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop, Watch
    from shed.guest.mux import Stream
    from shed.guest.tasks import Task

_STDIN_LIMIT = protocol.STDIN_GROWN + 1
"""Bytes of standard input that wait for the command before frames are left unread: more than a host that keeps to the
rules sends.
"""
_STDIN_STEP, _GROWN_STEP = protocol.STDIN_WINDOW // 4, protocol.STDIN_GROWN // 4
_DRAINED, _DRAIN_PAUSE = 1 << 20, 0.05
"""Bytes that are thrown away at once, and seconds until the next."""
_FIONREAD = 0x541B
"""ioctl: tell how many bytes wait, asm-generic/ioctls.h."""


class Stdin:
    """Standard input on its way to the command; the host is told what was taken.

    What the command does not want is thrown away.
    """

    def __init__(self, watch: Watch, stream: Stream) -> None:
        self._watch = watch
        self._stream = stream
        self._taken = 0
        self._step = _STDIN_STEP
        self._silent = False
        self._waiting: deque[bytes | memoryview] = deque()
        self._size = 0
        self._ended = False
        self._broken = False
        self._came = Event()
        self._room = Event()

    async def put(self, data: bytes | memoryview) -> None:
        """Take input; waits while the command is far behind."""
        if self._broken:
            return
        if not data:
            return
        self._waiting.append(data)
        self._size += len(data)
        self._came.set()
        while self._size >= _STDIN_LIMIT and not self._broken:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """Close the pipe after what was put."""
        self._ended = True
        self._came.set()

    async def pump(self) -> None:
        """Carry input to the command until its end."""
        try:
            while not (self._ended and not self._waiting):
                if not self._waiting:
                    self._came.clear()
                    await self._came.wait()
                    continue
                data = self._waiting.popleft()
                await self._watch.write(data)
                self._size -= len(data)
                self._room.set()
                await self._tell_taken(len(data))
        except StreamCutError:
            return
        except OSError:
            self._broken = True  # the command closed its end; signals go on, input goes nowhere
            self._waiting.clear()
            self._size = 0
            self._room.set()
            return
        self._watch.close()

    def silence(self) -> None:
        """Tell nothing any more: the exit frame is next, and the last."""
        self._silent = True

    async def _tell_taken(self, count: int) -> None:
        self._taken += count
        if self._taken >= self._step and not self._silent:
            taken, self._taken = self._taken, 0
            if self._step == _STDIN_STEP:  # it is much
                self._step = _GROWN_STEP
                taken += protocol.STDIN_GROWN - protocol.STDIN_WINDOW
                enlarge(self._watch.fd)
            await self._stream.write(protocol.exec_frame(protocol.STDIN_TAKEN, pack(">I", taken)))

    def close(self) -> None:
        """Close the pipe now."""
        self._watch.close()


class Output:
    """One output of the command on its way to the client."""

    def __init__(self, loop: Loop, watch: Watch, stream: Stream, kind: int) -> None:
        self._loop = loop
        self._watch = watch
        self._carrier = Carrier(watch, stream, kind)
        self._reading = False
        self._left: int | None = None
        self._ended = self._given = False
        self.task: Task | None = None

    async def pump(self) -> None:
        """Carry output to the client until its end."""
        try:
            while self._left is None or self._left > 0:
                self._reading = True
                count = await self._carrier.read(self._left)
                self._reading = False
                if not count:
                    self._ended = True
                    return
                if self._left is not None:
                    self._left -= count
                await self._carrier.send()
        except (OSError, StreamCutError):
            pass  # a terminal's end is an error (EIO); a cut stream has ended the session already

    async def finish(self, deadline: float | None) -> None:
        """The command has ended: carry what it wrote, and what processes it left behind write until `deadline`.

        Then stop.  Without a deadline that is when none of them has the pipe any more.
        """
        seconds = None if deadline is None else max(0.0, deadline - self._loop.now())
        if self.task is None or await self.task.done.wait(seconds):
            return
        if self._reading or self._watch.fd < 0:
            self.task.cancel()
        else:
            self._left = int.from_bytes(fcntl.ioctl(self._watch.fd, _FIONREAD, bytes(4)), "little")
        await self.task.done.wait()

    def stop(self) -> None:
        """Carry nothing any more."""
        if self.task is not None:
            self.task.cancel()

    def let_go(self) -> None:
        """Let who else holds the pipe write on: closing it would end them."""
        if not self._ended and self._watch.fd >= 0:
            self._given = True
            self._loop.spawn(_drain(self._loop, self._watch), name="output of those left behind")

    def close(self) -> None:
        """Close our end, unless it was let go."""
        if not self._given:
            self._watch.close()


async def _drain(loop: Loop, watch: Watch) -> None:
    """Throw away what comes until nobody holds the pipe; slowly, so that a program that never stops costs little."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                taken = os.splice(watch.fd, nowhere, _DRAINED)
            except BlockingIOError:
                await watch.readable.wait()
                continue
            if not taken:
                return
            await loop.sleep(_DRAIN_PAUSE)
    finally:
        os.close(nowhere)
        watch.close()
