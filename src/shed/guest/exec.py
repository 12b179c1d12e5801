"""Port 1024: one stream, one command.

The rules: argv is taken literally; standard output and standard error are frames of their own; the exit frame is the
last, after all output; a client that is gone (its side of the stream ended, or cut) means SIGHUP to the command's
process group; the end of standard input (STDIN_EOF) stops neither signals nor resizes; unknown frames are skipped.

A command may leave processes behind that hold its output.  They get a moment; with ``to_end`` in the request they get
until they close it, as sshd has it.  What they write later is thrown away, and does not end them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import fcntl
import os
from _struct import pack

from shed.guest import process, protocol, wirejson
from shed.guest.frames import FrameReader
from shed.guest.mux import StreamCutError
from shed.guest.state import FROZEN
from shed.guest.stdio import Output, Stdin
from shed.guest.tasks import Event
from shed.guest.users import UnknownUserError, command_environment, find_user, starting_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop, Watch
    from shed.guest.mux import Stream
    from shed.guest.state import State

_PATIENCE, _PATIENCE_WITH_TERMINAL = 2.0, 0.25
"""Seconds that output may still come after the command ended, when processes that it left behind keep it open: long
enough for the end of a pipeline that nobody waits for, as in ``exec > >(tee log)``.
"""
_BETWEEN_LOOKS = 0.01
_TIOCSWINSZ = 0x5414
"""ioctl: set a terminal's size, asm-generic/ioctls.h."""


class Request:
    """A checked EXEC_REQUEST."""

    def __init__(self, payload: bytes) -> None:
        """Raises `ValueError` that says what is wrong."""
        value = wirejson.loads(payload)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        self.words = _texts(value, "cmd")
        self.fallback = _texts(value, "fallback")
        self.env = dict(_assignment(text) for text in _texts(value, "env"))
        self.terminal = value.get("tty") is True
        self.rows, self.columns = window_size(value)
        self.modes = _pairs(value.get("modes"))
        self.folder = _text(value, "working_dir")
        self.at_home = value.get("home") is True
        self.user = _text(value, "user")
        self.to_end = value.get("to_end") is True


def window_size(value: dict[str, object]) -> tuple[int, int]:
    """Return rows and columns from a request or a resize; 24 by 80 when they make no sense."""
    rows, columns = value.get("rows"), value.get("cols")
    if isinstance(rows, int) and isinstance(columns, int) and 0 < rows < 65536 and 0 < columns < 65536:
        return rows, columns
    return 24, 80


def _texts(value: dict[str, object], key: str) -> list[str]:
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(text, str) and "\0" not in text for text in found):
        raise ValueError(f"{key} must be a list of strings without NUL")
    return found


def _text(value: dict[str, object], key: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str) or "\0" in found:
        raise ValueError(f"{key} must be a string without NUL")
    return found


def _pairs(found: object) -> list[tuple[int, int]]:
    if found is None:
        return []
    if not isinstance(found, list) or not all(
        isinstance(pair, list) and [type(part) for part in pair] == [int, int] for pair in found
    ):
        raise ValueError("modes must be a list of pairs of numbers")
    return [(opcode, value) for opcode, value in found]


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"env: {text!r} is not KEY=VALUE")
    return key, value


async def serve(loop: Loop, state: State, stream: Stream) -> None:
    """Run the command a stream asks for, to its end."""
    frames = FrameReader(stream)
    first = await frames.next()
    if first is None:
        return
    while state.phase == FROZEN:  # it goes on in a moment, or is another shed then, and nobody waits for this
        await loop.sleep(_BETWEEN_LOOKS)
        if stream.gone.is_set:
            return
    session = Session(loop, stream, frames)
    state.sessions.add(session)
    try:
        if not state.runs_commands():
            raise process.StartError(process.NOT_RUN, f"this machine is {state.phase}, not ready")
        if first[0] != protocol.EXEC_REQUEST:
            raise process.StartError(process.NOT_RUN, "the first frame must be the request")
        try:
            request = Request(bytes(first[1]))
        except ValueError as error:
            raise process.StartError(process.NOT_RUN, f"bad request: {error}") from None
        await session.run(request, state)
    except process.StartError as error:
        await _tell_exit(stream, {"code": error.code, "error": str(error)})
    except OSError as error:
        await _tell_exit(
            stream, {"code": process.NOT_RUN, "error": f"the machine has no room for another command: {error}"}
        )
    finally:
        state.sessions.discard(session)


async def _tell_exit(stream: Stream, value: dict[str, object]) -> None:
    await stream.write(protocol.exec_frame(protocol.EXIT_CODE, wirejson.dumps(value)))


class Session:
    """A running command and the client that watches it."""

    def __init__(self, loop: Loop, stream: Stream, frames: FrameReader) -> None:
        self._loop = loop
        self._stream = stream
        self._frames = frames
        self._process: process.Process | None = None
        self._stdin: Stdin | None = None
        self._outputs: list[Output] = []
        self._terminal: Watch | None = None
        self._over = Event()

    async def run(self, request: Request, state: State) -> None:
        """Start the command and stay with it.  Raises `StartError` and `StreamCutError`."""
        if state.no_user and not request.user:
            raise process.StartError(process.NOT_RUN, state.no_user)
        try:
            user = find_user(request.user) if request.user else state.user
        except UnknownUserError as error:
            raise process.StartError(process.NOT_RUN, str(error)) from None
        commands = [(words[0], words) for words in (request.words, request.fallback) if words]
        if not request.words:
            commands = [(user.login_shell, ["-" + user.login_shell.rpartition("/")[2]])]
        theirs = self._open_terminal(request, user.uid) if request.terminal else self._open_pipes()
        try:
            self._process = await process.start(
                self._loop,
                commands,
                env=command_environment(user, {**state.env, **state.outfit()}, request.env),
                user=user,
                folders=starting_folders(request.folder, [] if request.at_home else state.folders, user),
                stdio=theirs,
                terminal=request.terminal,
            )
        except BaseException:
            self._close()
            raise
        finally:
            for fd in set(theirs):
                os.close(fd)
        await self._accompany(self._process, to_end=request.to_end and not request.terminal)

    def hang_up(self) -> None:
        """The client is gone, or the machine is going down: tell the command and let it be."""
        if self._process is not None:
            self._process.signal_group(_signal.SIGHUP)
        if self._over.is_set:  # only output is still waited for
            for output in self._outputs:
                output.stop()
        self._over.set()

    async def _accompany(self, command: process.Process, *, to_end: bool) -> None:
        tasks = [self._loop.spawn(self._take_frames(command), name="exec input")]
        if self._stdin is not None:
            tasks.append(self._loop.spawn(self._stdin.pump(), name="exec stdin"))
        for output in self._outputs:
            output.task = self._loop.spawn(output.pump(), name="exec output")
        command.ended.then(self._over.set)
        self._stream.gone.then(self.hang_up)
        try:
            await self._over.wait()
            if command.ended.is_set:
                patience = _PATIENCE if self._terminal is None else _PATIENCE_WITH_TERMINAL
                await self._finish_output(None if to_end else self._loop.now() + patience)
                if self._stdin is not None:
                    self._stdin.silence()
                how: dict[str, object] = {"signal": command.signal} if command.signal else {}
                if self._terminal is None:
                    for output in self._outputs:
                        output.let_go()
                await _tell_exit(self._stream, {"code": command.code, **how})
        finally:
            for task in tasks:
                task.cancel()
            for output in self._outputs:
                output.stop()
            self._close()

    async def _finish_output(self, deadline: float | None) -> None:
        for output in self._outputs:
            await output.finish(deadline)

    async def _take_frames(self, command: process.Process) -> None:
        """Act on what the client sends until it is gone."""
        try:
            while (frame := await self._frames.next()) is not None:
                kind, payload = frame
                if kind == protocol.DATA_FRAME and self._stdin is not None:
                    await self._stdin.put(payload)
                elif kind == protocol.STDIN_EOF and self._stdin is not None and self._terminal is None:
                    self._stdin.end()
                elif kind == protocol.STDOUT_CLOSED:
                    self._close_stdout()
                elif kind == protocol.RESIZE and self._terminal is not None:
                    rows, columns = window_size(_object(payload))
                    self._resize(rows, columns)
                elif kind == protocol.SIGNAL:
                    number = _object(payload).get("signal")
                    if isinstance(number, int) and 1 <= number <= 64:
                        command.signal_group(number)
        except (StreamCutError, protocol.ProtocolError):
            pass
        self.hang_up()

    def _close_stdout(self) -> None:
        if self._terminal is None:
            self._outputs[0].close()
        else:
            self.hang_up()

    def _open_pipes(self) -> tuple[int, int, int]:
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe2(os.O_CLOEXEC)
        except OSError:
            for fd in ends:
                os.close(fd)
            raise
        in_read, in_write, out_read, out_write, err_read, err_write = ends
        self._stdin = Stdin(self._loop.watch(in_write), self._stream)
        self._outputs = [
            Output(self._loop, self._loop.watch(out_read), self._stream, protocol.DATA_FRAME),
            Output(self._loop, self._loop.watch(err_read), self._stream, protocol.STDERR),
        ]
        return in_read, out_write, err_write

    def _open_terminal(self, request: Request, uid: int) -> tuple[int, int, int]:
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            raise process.StartError(process.NOT_RUN, f"no terminal: {error}") from None
        try:
            os.fchown(theirs, uid, -1)
        except PermissionError:
            pass  # not root: it is ours already
        self._terminal = self._loop.watch(ours)
        self._stdin = Stdin(self._terminal, self._stream)
        self._outputs = [Output(self._loop, self._terminal, self._stream, protocol.DATA_FRAME)]
        self._resize(request.rows, request.columns)
        if request.modes:
            from shed.guest.terminal import set_modes

            set_modes(theirs, request.modes)
        return theirs, theirs, theirs

    def _resize(self, rows: int, columns: int) -> None:
        if self._terminal is not None and self._terminal.fd >= 0:
            fcntl.ioctl(self._terminal.fd, _TIOCSWINSZ, pack("HHHH", rows, columns, 0, 0))

    def _close(self) -> None:
        if self._stdin is not None:
            self._stdin.close()
        for output in self._outputs:
            output.close()


def _object(payload: bytes | memoryview) -> dict[str, object]:
    """Return the JSON object of a frame; an empty one when it is nothing of the kind."""
    try:
        value = wirejson.loads(bytes(payload))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
