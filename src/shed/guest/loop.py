"""A small event loop: epoll, timers and child processes, for the tasks of `shed.guest.tasks`.

asyncio does all of this and more, but importing it costs a second and a half on an emulated CPU, in the middle of every
cold start.

File descriptors are watched edge-triggered and must be non-blocking: read or write first, and wait only after
`BlockingIOError`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import os
import select
import sys
import time

from shed.guest.tasks import Event, Task, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType
    from typing import Any

_READ = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
_WRITE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Watch:
    """A file descriptor in the loop: one event for "may be readable" and one for "may be writable"."""

    __slots__ = ("_loop", "fd", "readable", "writable")

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self.fd = fd
        self.readable = Event()
        self.writable = Event()

    async def read(self, limit: int) -> bytes:
        """Read up to `limit` bytes; empty at the end of file.  Raises `OSError`."""
        while True:
            try:
                return os.read(self.fd, limit)
            except BlockingIOError:
                await self.readable.wait()
                self._check_open()

    async def read_into(self, *buffers: memoryview) -> int:
        """Fill `buffers` in turn with what is there; return how many bytes, 0 at the end of file.  Raises `OSError`."""
        while (size := self.read_now(*buffers)) < 0:
            await self.readable.wait()
            self._check_open()
        return size

    def read_now(self, *buffers: memoryview) -> int:
        """As `read_into`, or return -1 when nothing is there."""
        try:
            return os.readv(self.fd, buffers)
        except BlockingIOError:
            return -1

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`.  Raises `OSError`."""
        rest = memoryview(data)
        while rest := rest[self.write_now(rest) :]:
            await self.writable.wait()
            self._check_open()

    def write_now(self, data: memoryview) -> int:
        """Write what can be written without waiting; return how many bytes.  Raises `OSError`."""
        done = 0
        while done < len(data):
            try:
                done += os.write(self.fd, data[done:])
            except BlockingIOError:
                break
        return done

    def close(self) -> None:
        """Stop watching, close the descriptor, and fail those who wait on it; can be called twice."""
        if self.fd >= 0:
            self._loop.unwatch(self)
            os.close(self.fd)
            self.fd = -1
            self.readable.wake()
            self.writable.wake()

    def _check_open(self) -> None:
        if self.fd < 0:
            raise OSError(errno.EBADF, "closed while waiting")


class Loop:
    """Runs tasks on one thread until `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watches: dict[int, Watch] = {}
        self._soon: list[Callable[[], None]] = []
        self._timers: list[Timer] = []
        self._children: dict[int, Callable[[int], None]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._stopped = False
        self._adopted = False
        self._wake_read = self._wake_write = -1

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> Task:
        """Start a task."""
        task = Task(self, coroutine, name)
        task.resume()
        return task

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next round."""
        self._soon.append(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in `seconds`; the result can be cancelled."""
        timer = Timer(time.monotonic() + seconds, callback)
        self._timers.append(timer)
        return timer

    def watch(self, fd: int) -> Watch:
        """Watch `fd`, which becomes non-blocking and belongs to the watch from now on."""
        os.set_blocking(fd, False)
        watch = Watch(self, fd)
        self._watches[fd] = watch
        self._epoll.register(fd, _WATCHED)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Stop watching."""
        if self._watches.pop(watch.fd, None) is not None:
            self._epoll.unregister(watch.fd)

    def reap_children(self, *, adopted: bool) -> None:
        """From now on collect children that end and tell who asked with `on_exit`.

        With `adopted`, those nobody asked for too.
        """
        self._adopted = adopted
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        _signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, _ignore_signal)
        self.call_soon(self._reap)  # those that ended before

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call back when this process gets the signal; after `reap_children`."""
        self._signals[number] = callback
        _signal.signal(number, _ignore_signal)

    def reap_only_own(self) -> None:
        """Leave children nobody asked for alone: we are no longer the first process, but a child of it."""
        self._adopted = False
        self._children.clear()

    def on_exit(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the wait status when the child `pid` ends."""
        self._children[pid] = callback

    def run(self) -> None:
        """Run until `stop`; the agent's loop never is."""
        while not self._stopped:
            soon, self._soon = self._soon, []
            for callback in soon:
                callback()
            if not self._stopped:
                self._poll()

    def stop(self) -> None:
        """End `run` after this round."""
        self._stopped = True

    def close(self) -> None:
        """Give the loop's own descriptor back; for a loop that has waited for no child."""
        self._epoll.close()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await Event().wait(seconds)

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        return time.monotonic()

    def log(self, text: str) -> None:
        """Print a line on the console."""
        try:
            sys.stderr.write(f"shed-agent: {text}\n")
            sys.stderr.flush()
        except OSError:
            pass  # nobody is there to be told

    def report(self, task: Task) -> None:
        """Print what went wrong in a task, and go on."""
        self.log(f"task {task.name} failed: {task.error!r}")
        sys.excepthook(type(task.error), task.error, task.error.__traceback__)  # type: ignore[arg-type, union-attr]

    def _poll(self) -> None:
        timeout = -1.0
        if self._soon:
            timeout = 0.0
        elif self._timers:
            timeout = max(0.0, min(timer.at for timer in self._timers) - time.monotonic())
        for fd, mask in self._epoll.poll(timeout):
            if fd == self._wake_read:
                self._reap()
                continue
            watch = self._watches.get(fd)
            if watch is not None:
                if mask & _READ:
                    watch.readable.wake()
                if mask & _WRITE:
                    watch.writable.wake()
        if self._timers:
            self._run_timers()

    def _run_timers(self) -> None:
        now = time.monotonic()
        due = [timer for timer in self._timers if timer.at <= now]
        self._timers = [timer for timer in self._timers if timer.at > now and timer.callback is not None]
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def _reap(self) -> None:
        received = b""
        try:
            while data := os.read(self._wake_read, 4096):
                received += data
        except BlockingIOError:
            pass
        for number in set(received) & self._signals.keys():
            self._signals[number]()
        if not self._adopted:
            for asked in list(self._children):
                self._reap_one(asked)
        else:
            while self._reap_one(-1):
                pass

    def _reap_one(self, which: int) -> bool:
        try:
            pid, status = os.waitpid(which, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return False
        callback = self._children.pop(pid, None)
        if callback is not None:
            callback(status)
        return True


def _ignore_signal(_signum: int, _frame: FrameType | None) -> None:
    """Let the signal reach the wake-up pipe."""
