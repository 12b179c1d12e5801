"""One command in a shed, and the bytes between it and three file descriptors.

One loop over `ready`, for one thread.  What cannot be written is kept and its source is not read until it is gone, so
memory is bounded whatever the speeds.  The descriptors stay in blocking mode: they are shared with the shell that
started us, and with whoever else writes there.  On the way of every `shed exec`: imports nothing that takes time.
"""

from __future__ import annotations

import _socket
import os

from shed.client.address import Address
from shed.client.transport import ready, upgrade
from shed.errors import BackendError, ShedError, UnavailableError
from shed.execstream import ExecStream, Exit, Output, StreamEndedError, request_frame
from shed.guest.protocol import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_READ = 128 * 1024
_PIPE_BUF = 4096
"""When poll(2) says that a pipe is writable, this many bytes go in without blocking (POSIX; PIPE_BUF of Linux)."""
_SIGPIPE_STATUS = 128 + 13
_ANSWER_TIMEOUT = 5.0
"""Seconds for the server to say whether the guest answers; it gives the guest three."""


class OutputError(ShedError):
    """What the command printed cannot be written here."""

    code = "OUTPUT_FAILED"


class Execution:
    """A running command.  `run` carries its bytes until it ends.

    `resize` and `signal` may be called from `on_wake` meanwhile.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        command: list[str],
        *,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        env: list[str] | None = None,
        working_dir: str | None = None,
        user: str | None = None,
        on_wait: Callable[[], None] | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        """Start `command`, each word as it is, in the shed `name`; an empty one is the user's login shell.

        `size` is (rows, columns) of a `tty`; `env` holds ``KEY=VALUE`` words.  `on_wait` is called when it takes a
        second or more, `on_start` when the shed must be started first.  Raises the `ShedError` the server answers with.
        """
        request = request_frame(command, tty=tty, size=size, env=env or (), working_dir=working_dir, user=user)
        self._address = address
        self._name = name
        self._socket = upgrade(
            address, "POST", f"/api/sheds/{name}/exec", "shed-exec", on_wait=on_wait, on_start=on_start
        )
        self._socket.setblocking(False)
        self._stream = ExecStream()
        self._outbox = bytearray(request)
        self._connected = True
        self._pending = memoryview(b"")
        """Output on its way to the descriptor `_sink`; while there is some, no more is taken from the connection."""
        self._sink = -1

    def __enter__(self) -> Execution:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resize(self, rows: int, cols: int) -> None:
        """Tell the command's terminal its new size."""
        self._send(self._stream.resize(rows, cols))

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        self._send(self._stream.signal(number))

    def answers(self) -> bool:
        """Say whether the guest still answers; a few seconds pass when it does not."""
        from shed.client.sync.requests import request  # noqa: PLC0415  only a command that does not listen costs this

        try:
            request(self._address, "GET", f"/api/sheds/{self._name}/health", start=False, timeout=_ANSWER_TIMEOUT)
        except (BackendError, UnavailableError):
            return False
        except ShedError:  # whoever says no is there
            return True
        return True

    def hang_up(self) -> None:
        """Have `run`, in another thread, see the connection end; the command gets SIGHUP."""
        try:  # noqa: SIM105  no contextlib here
            self._socket.shutdown(_socket.SHUT_RDWR)
        except OSError:  # it has ended
            pass

    def close(self) -> None:
        """Drop the connection: a command that still runs gets SIGHUP.  Can be called twice."""
        self._connected = False
        self._socket.close()

    def run(self, *, stdin: int | None = 0, stdout: int = 1, stderr: int = 2, wake: Wake | None = None) -> Exit:
        """Carry bytes between the command and these descriptors until it ends.

        Without `stdin` the command reads end of file.  A reader of `stdout` who leaves ends the command as SIGPIPE
        would. Raises `BackendError` (EXEC_LOST) when the connection breaks first, `OutputError` when a descriptor
        refuses the output.
        """
        plain = {fd: _is_file(fd) for fd in (stdout, stderr)}
        connection = self._socket.fileno()
        if stdin is None:
            self._send(self._stream.stdin_end())
        while True:
            if not self._pending:
                ended = self._take_events(stdout, stderr)
                if ended is not None:
                    return ended
            sources = [] if wake is None else [wake.fd]
            sinks = []
            if self._pending:
                sinks.append(self._sink)
            else:
                sources.append(connection)
            if self._outbox:
                sinks.append(connection)
            elif stdin is not None and self._connected and self._stream.room > 0:
                sources.append(stdin)
            readable, writable = ready(sources, sinks, None if wake is None else wake.patience)
            if wake is not None and not readable and not writable:
                ended = wake.silence()
                if ended is not None:
                    return ended
            if wake is not None and wake.fd in readable:
                for number in os.read(wake.fd, 256):
                    wake.handle(number)
            if self._pending and self._sink in writable and not self._print(plain[self._sink]):
                return Exit(_SIGPIPE_STATUS)
            if connection in writable:
                self._flush()
            if stdin is not None and stdin in readable and not self._forward(stdin):
                stdin = None
            if connection in readable:
                self._receive()

    def _send(self, frame: bytes) -> None:
        if self._connected:
            self._outbox += frame

    def _flush(self) -> None:
        try:
            del self._outbox[: self._socket.send(self._outbox)]
        except BlockingIOError:
            pass
        except OSError:  # it takes no more input; what it has said, the exit code above all, is still to be read
            self._connected = False
            self._outbox.clear()

    def _forward(self, stdin: int) -> bool:
        """Pass on what can be read; False at the end of file."""
        try:
            data = os.read(stdin, min(_READ, self._stream.room))
        except OSError:  # a terminal that hung up, a folder
            data = b""
        self._send(self._stream.stdin(data) if data else self._stream.stdin_end())
        return bool(data)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._stream.feed(data)

    def _take_events(self, stdout: int, stderr: int) -> Exit | None:
        """Look at what has arrived up to the next output, which becomes pending, or the end, which is returned."""
        try:
            while (event := self._stream.next()) is not None:
                if isinstance(event, Exit):
                    return event
                if isinstance(event, Output):
                    self._pending, self._sink = memoryview(event.data), stderr if event.error else stdout
                    break
        except StreamEndedError:
            raise BackendError(
                f"lost the connection to the command in {self._name}",
                code="EXEC_LOST",
                hint=f"see what happened: shed logs {self._name}",
            ) from None
        except ProtocolError as error:
            raise BackendError(
                f"the agent of {self._name} does not speak our protocol: {error}", code="AGENT_PROTOCOL"
            ) from None
        return None

    def _print(self, plain: bool) -> bool:
        """Write some of the pending output; False when its reader has left."""
        try:
            written = os.write(self._sink, self._pending if plain else self._pending[:_PIPE_BUF])
        except BlockingIOError:  # somebody else put it into non-blocking mode
            return True
        except BrokenPipeError:
            return False
        except OSError as error:
            raise OutputError(
                f"cannot write the command's output: {error.strerror}", hint="the command was hung up"
            ) from None
        self._pending = self._pending[written:]
        return True


class Wake:
    """A descriptor that becomes readable when signals arrive, and the actions for them.

    It has one byte for each signal (`signal.set_wakeup_fd`).
    """

    fd: int
    patience: float | None = None
    """Seconds in which nothing may happen at all before `silence` is called."""

    def handle(self, number: int) -> None:
        """Act on the signal `number`."""

    def silence(self) -> Exit | None:
        """Return how the command shall count as ended; None to wait on."""
        return None


def _is_file(fd: int) -> bool:
    """Say whether writes to `fd` never wait for a reader, so that they need not be cut into small ones."""
    return os.fstat(fd).st_mode & 0o170000 == 0o100000
