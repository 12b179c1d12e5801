"""Commands in a shed for programs: run to the end with their output, or as a process with pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, BinaryIO

from shed.client.execution import Execution, Wake
from shed.errors import ShedError
from shed.execstream import Exit

Command = str | Sequence[str]
"""Words that arrive as they are, or one text that ``sh -c`` runs."""
Input = bytes | str | IO[bytes] | None
_GRACE = 5.0
"""Seconds that a command which is being killed has to be gone, before its shed is taken for hung."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did: its exit code (128 + N when signal N ended it) and its outputs."""

    command: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """Standard output as UTF-8; bytes that are none become U+FFFD."""
        return self.stdout.decode(errors="replace")

    def check(self) -> Result:
        """Return itself.  Raises `CommandError` unless the exit code is 0."""
        if self.exit_code:
            raise CommandError(self)
        return self


class CommandError(ShedError):
    """A command failed; `result` holds its exit code and outputs."""

    code = "COMMAND_FAILED"

    def __init__(self, result: Result, message: str | None = None, *, code: str | None = None) -> None:
        said = result.stderr.decode(errors="replace").strip().splitlines()
        why = f": {said[-1]}" if said else ""
        super().__init__(message or f"{result.command[0]!r} returned {result.exit_code}{why}", code=code)
        self.result = result


class CommandTimeoutError(CommandError):
    """A command took longer than it may, and was killed; `result` holds what it wrote until then."""

    def __init__(self, result: Result, seconds: float) -> None:
        super().__init__(
            result, f"{result.command[0]!r} took longer than {seconds:g} s and was killed", code="COMMAND_TIMEOUT"
        )


def content_of(result: Result, path: str) -> bytes:
    """Return what `READ` found in the file `path`.

    Raises `CommandError` (FILE_NOT_READ) that says what is wrong with the file.
    """
    if result.exit_code:
        said = result.stderr.decode(errors="replace").strip()
        raise CommandError(result, f"{path}: {said.rpartition(': ')[2] or 'it cannot be read'}", code="FILE_NOT_READ")
    return result.stdout


def words_of(command: Command) -> list[str]:
    """Return the words of a command."""
    return ["sh", "-c", command] if isinstance(command, str) else list(command)


def assignments(env: Mapping[str, str] | None) -> list[str]:
    """Return an environment as ``KEY=VALUE`` words."""
    return [f"{key}={value}" for key, value in (env or {}).items()]


def run(start: Callable[[], Execution], words: list[str], stdin: Input, timeout: float | None) -> Result:
    """Run a command to its end.

    Its outputs go through temporary files, so nothing waits for anything, whatever their size.

    Raises `CommandTimeoutError` after `timeout` seconds, and the `ShedError` that kept the command from running.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
        given = stack.enter_context(_input(stdin))
        execution = stack.enter_context(start())
        deadline = stack.enter_context(_Deadline(execution, timeout)) if timeout is not None else None
        ended = execution.run(stdin=given, stdout=files[0].fileno(), stderr=files[1].fileno(), wake=deadline)
        result = Result(tuple(words), ended.code, *(_content(file) for file in files))
        if deadline is not None and deadline.passed:
            raise CommandTimeoutError(result, deadline.seconds)
        return started(result, ended)


def started(result: Result, ended: Exit) -> Result:
    """Return `result`.  Raises `CommandError` (EXEC_FAILED) when the command did not even start."""
    if ended.error:
        raise CommandError(result, ended.error, code="EXEC_FAILED")
    return result


@contextlib.contextmanager
def _input(stdin: Input) -> Iterator[int | None]:
    if stdin is None:
        yield None
    elif isinstance(stdin, bytes | str):
        with tempfile.TemporaryFile() as file:
            file.write(stdin.encode() if isinstance(stdin, str) else stdin)
            file.flush()
            file.seek(0)
            yield file.fileno()
    else:
        yield stdin.fileno()


def _content(file: BinaryIO | IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


class _Messages(Wake):
    """Signals for a command from other threads: a byte in a pipe each."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.fd, self._write = os.pipe()
        self._open = threading.Lock()

    def send(self, number: int) -> None:
        """Have the command get a signal; nothing happens when it has ended."""
        with self._open:
            if self._write >= 0:
                os.write(self._write, bytes([number]))

    def handle(self, number: int) -> None:
        """Pass a signal on."""
        self._execution.signal(number)

    def close(self) -> None:
        """Close the pipe."""
        with self._open:
            os.close(self.fd)
            os.close(self._write)
            self._write = -1


class _Deadline(_Messages):
    """Kills a command that takes too long."""

    def __init__(self, execution: Execution, seconds: float) -> None:
        super().__init__(execution)
        self.seconds = seconds
        self.passed = False
        self._timer = threading.Timer(seconds, self.send, (signal.SIGKILL,))
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self.close()

    def handle(self, number: int) -> None:
        """The time is over."""
        self.passed = True
        self.patience = _GRACE
        super().handle(number)

    def silence(self) -> Exit | None:
        """Leave a guest alone that does not even kill."""
        return Exit(128 + signal.SIGKILL) if self.passed else None


class Process:
    """A command that runs, with pipes like those of `subprocess.Popen`; leaving its block hangs it up.

    A thread carries the bytes.  What is not read holds the command up, so read both outputs, or merge them.
    """

    def __init__(self, start: Callable[[], Execution], *, merge: bool = False) -> None:
        self._execution = start()
        self._messages = _Messages(self._execution)
        ends = [os.pipe() for _ in range(2 if merge else 3)]
        self.stdin: BinaryIO = open(ends[0][1], "wb", buffering=0)  # noqa: SIM115  closed by close()
        """What the command reads; close it for its end."""
        self.stdout: BinaryIO = open(ends[1][0], "rb")  # noqa: SIM115
        """What the command writes, also to standard error when they are merged."""
        self.stderr: BinaryIO | None = None if merge else open(ends[2][0], "rb")  # noqa: SIM115
        self._theirs = (ends[0][0], ends[1][1], ends[-1][1])
        self._ended: Exit | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, as a shell counts it.

        Raises `TimeoutError` after `timeout` seconds, and `BackendError` (EXEC_LOST).
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the command still runs after {timeout:g} s")
        if self._failure is not None:
            raise self._failure
        assert self._ended is not None
        if self._ended.error:
            raise ShedError(self._ended.error, code="EXEC_FAILED")
        return self._ended.code

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        self._messages.send(number)

    def close(self) -> None:
        """Hang the command up if it still runs, and close the pipes."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._thread.is_alive():
            self._execution.hang_up()
            self._thread.join()

    def _carry(self) -> None:
        stdin, stdout, stderr = self._theirs
        try:
            self._ended = self._execution.run(stdin=stdin, stdout=stdout, stderr=stderr, wake=self._messages)
        except BaseException as error:  # noqa: BLE001  raised by wait()
            self._failure = error
        finally:
            self._execution.close()
            self._messages.close()
            for fd in set(self._theirs):
                os.close(fd)
