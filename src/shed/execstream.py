"""The host's half of an exec stream: one command, from its request to its exit.  No I/O here.

Received bytes go into `ExecStream.feed`, events come out of `ExecStream.next`; what is to be sent is returned as bytes.
The frames are described in `shed.guest.protocol`.  Who drives it: `shed.client.execution` for three file descriptors,
`shed.client.asyncprocess` for asyncio, `shed.server.ssh.command` for an SSH channel, and `shed.sheds.commands` for the
server's own commands.

On the way of every `shed exec`: imports nothing that takes time.
"""

from __future__ import annotations

from shed.errors import UsageError
from shed.guest.protocol import (
    DATA_FRAME,
    EXEC_REQUEST,
    EXIT_CODE,
    MAX_PAYLOAD,
    RESIZE,
    SIGNAL,
    STDERR,
    STDIN_EOF,
    STDIN_TAKEN,
    STDIN_WINDOW,
    STDOUT_CLOSED,
    FrameDecoder,
    ProtocolError,
    counted,
    exec_frame,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_RUNTIME = "/run/shed-runtime"
_HELPER = f"""\
for loader in {_RUNTIME}/lib/ld-linux-*; do
    exec "$loader" --inhibit-cache --library-path {_RUNTIME}/lib {_RUNTIME}/bin/python3 -I -S -B -X utf8 -c "$0" "$@"
done"""


class StreamEndedError(ProtocolError):
    """The stream ended before the command did: the guest, or the connection to it, is lost."""


class Output:
    """The command has written `data`, which is not empty; `error` says that it went to standard error."""

    __slots__ = ("data", "error")

    def __init__(self, data: bytes, error: bool) -> None:
        self.data = data
        self.error = error


class Room:
    """The command has taken some of its standard input: `ExecStream.room` has grown."""

    __slots__ = ()


class Exit:
    """How a command ended, which is the last event.

    `code` is 0 to 255, the way a shell counts (128 + signal).  `signal` is the number of the signal that ended it, or
    0.  `error` says why it did not even start; it is None for a command that did.
    """

    __slots__ = ("code", "error", "signal")

    def __init__(self, code: int, error: str | None = None, signal: int = 0) -> None:
        self.code = code
        self.error = error
        self.signal = signal


Event = Output | Room | Exit
_ROOM = Room()


class ExecStream:
    """The state of one exec stream.  The caller has sent `request_frame` before everything else."""

    __slots__ = ("_decoder", "_end", "_error", "_input_ended", "exit", "room")

    def __init__(self, most: int = MAX_PAYLOAD) -> None:
        """`most` is the longest payload of a frame, in bytes, that the guest may send."""
        self._decoder = FrameDecoder(most)
        self._end = False
        self._error: ProtocolError | None = None
        self._input_ended = False
        self.exit: Exit | None = None
        """How the command ended, once `next` has returned it."""
        self.room = STDIN_WINDOW
        """Bytes of standard input that may be sent before the guest tells that the command has taken some."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take received bytes; empty ones mean that the stream has ended."""
        if data:
            self._decoder.feed(data)
        else:
            self._end = True

    def next(self) -> Event | None:
        """Return the next event, or None until more is fed; after the `Exit` there is none.

        Raises `ProtocolError` for bytes that make no sense, and `StreamEndedError`, which is one.  Then the stream is
        over, and every further call raises the same error.
        """
        if self._error is not None:
            raise self._error
        try:
            while self.exit is None and (frame := self._decoder.frame()) is not None:
                kind, payload = frame
                if kind in (DATA_FRAME, STDERR):
                    if payload:
                        return Output(payload, kind == STDERR)
                elif kind == STDIN_TAKEN:
                    self.room += counted(payload)
                    return _ROOM
                elif kind == EXIT_CODE:
                    self.exit = _exit_of(payload)
                    return self.exit
            if self._end and self.exit is None:
                raise StreamEndedError("the stream ended before the command")
        except ProtocolError as error:
            self._error = error
            raise
        return None

    def stdin(self, data: bytes | memoryview) -> bytes:
        """Return what sends `data`, at most `room` bytes, to the command's standard input.

        Raises `ValueError` for more, and after `stdin_end`.
        """
        if len(data) > self.room:
            raise ValueError(f"{len(data)} bytes of standard input, there is room for {self.room}")
        if self._input_ended:
            raise ValueError("standard input has ended")
        if not data:
            return b""
        self.room -= len(data)
        return exec_frame(DATA_FRAME, data)

    def stdin_end(self) -> bytes:
        """Return what has the command read the end of its standard input; nothing the second time."""
        if self._input_ended:
            return b""
        self._input_ended = True
        return exec_frame(STDIN_EOF)

    def signal(self, number: int) -> bytes:
        """Return what sends the signal `number`, 1 to 64, to the command's process group."""
        return exec_frame(SIGNAL, b'{"signal":%d}' % number)

    def stdout_closed(self) -> bytes:
        """Return what has the command's writes to standard output fail: nobody reads it any more."""
        return exec_frame(STDOUT_CLOSED)

    def resize(self, rows: int, cols: int) -> bytes:
        """Return what tells the command's terminal its new size."""
        return exec_frame(RESIZE, b'{"rows":%d,"cols":%d}' % (rows, cols))


def request_frame(
    command: Sequence[str],
    *,
    fallback: Sequence[str] = (),
    tty: bool = False,
    size: tuple[int, int] | None = None,
    modes: Iterable[tuple[int, int]] = (),
    env: Sequence[str] = (),
    working_dir: str | None = None,
    user: str | None = None,
    home: bool = False,
    to_end: bool = False,
) -> bytes:
    """Return the frame that asks for `command`, each word as it is; without words it is the user's login shell.

    `fallback` runs when the program of `command` is not in the image.  `size` is (rows, columns) of a `tty`, `modes`
    are those of the terminal (RFC 4254, section 8).  `env` holds ``KEY=VALUE`` words.  The command starts in
    `working_dir`, or in the user's home if `home` says so, or else in the workspace.  With `to_end`, its exit comes
    when nobody holds its output any more, and not soon after its own end.  Raises `UsageError`.
    """
    if any("\0" in word for word in command):
        raise UsageError("a command cannot hold NUL characters", hint="pass the bytes on standard input")
    members = [f'"cmd":{_texts(command)}', f'"tty":{"true" if tty else "false"}']
    if fallback:
        members.append(f'"fallback":{_texts(fallback)}')
    if size is not None:
        members.append(f'"rows":{size[0]},"cols":{size[1]}')
    if modes:
        members.append(f'"modes":[{",".join(f"[{opcode},{value}]" for opcode, value in modes)}]')
    if env:
        members.append(f'"env":{_texts(env)}')
    if working_dir is not None:
        members.append(f'"working_dir":{quote(working_dir)}')
    if user is not None:
        members.append(f'"user":{quote(user)}')
    if home:
        members.append('"home":true')
    if to_end:
        members.append('"to_end":true')
    return exec_frame(EXEC_REQUEST, ("{" + ",".join(members) + "}").encode())


def helper(module: str, *words: str) -> list[str]:
    """Return the command that runs ``main(words)`` of `shed.guest`'s `module` in a guest, by the runtime's own Python.

    Whatever its image has; of a runtime that has no such module, it fails.
    """
    program = f"import sys; sys.path.insert(0, '{_RUNTIME}/agent'); from shed.guest.{module} import main; "
    return script(f"{program}sys.exit(main(sys.argv[1:]))", *words)


def script(program: str, *words: str) -> list[str]:
    """Return the command that runs the Python `program` with `words` in a guest, by the runtime's own Python."""
    return [f"{_RUNTIME}/bin/busybox", "sh", "-c", _HELPER, program, *words]


def quote(text: str) -> str:
    """Return `text` as a JSON string."""
    try:
        from _json import encode_basestring_ascii  # noqa: PLC0415  json itself brings re
    except ImportError:
        from json.encoder import encode_basestring_ascii  # noqa: PLC0415
    return encode_basestring_ascii(text)


def _texts(words: Sequence[str]) -> str:
    return f"[{','.join(map(quote, words))}]"


def _exit_of(payload: bytes) -> Exit:
    if payload in (b'{"code":0}', b'{"code": 0}'):
        return Exit(0)
    from shed.untrusted import load_exit  # noqa: PLC0415  success does not need it

    try:
        code, signal, error = load_exit(payload)
    except ValueError as problem:
        raise ProtocolError(str(problem)) from None
    return Exit(code, error, signal)
