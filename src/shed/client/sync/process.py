"""Commands in a shed: run to the end with their output, or as a process with pipes.

`shed.client.aio.process` has the same names for asyncio.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, BinaryIO

from shed.client.address import Address
from shed.client.commands import CommandTimeoutError, Input, Result, started
from shed.client.execution import Execution, Wake
from shed.execstream import Exit

_GRACE = 5.0
"""Seconds that a command which is being killed has to be gone, before its shed is taken for hung."""


def run(
    address: Address,
    name: str,
    words: list[str],
    *,
    stdin: Input = None,
    env: list[str] | None = None,
    working_dir: str | None = None,
    user: str | None = None,
    timeout: float | None = None,
) -> Result:
    """Run a command to its end and return what it did; an open file as `stdin` is read from where it stands.

    Its outputs go through temporary files, so nothing waits for anything, whatever their size.  Raises
    `CommandTimeoutError` after `timeout` seconds, and the `ShedError` that kept the command from running.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
        given = stack.enter_context(_input(stdin))
        execution = stack.enter_context(Execution(address, name, words, env=env, working_dir=working_dir, user=user))
        deadline = stack.enter_context(_Deadline(execution, timeout)) if timeout is not None else None
        ended = execution.run(stdin=given, stdout=files[0].fileno(), stderr=files[1].fileno(), wake=deadline)
        result = Result(tuple(words), ended.code, *(_content(file) for file in files))
        if deadline is not None and deadline.passed:
            raise CommandTimeoutError(result, deadline.seconds)
        return started(result, ended)


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

    def __init__(self, execution: Execution, words: list[str], *, merge: bool) -> None:
        self._words = tuple(words)
        self._execution = execution
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

    @classmethod
    def start(
        cls,
        address: Address,
        name: str,
        words: list[str],
        *,
        env: list[str] | None = None,
        working_dir: str | None = None,
        user: str | None = None,
        merge: bool = False,
    ) -> Process:
        """Start a command; with `merge`, its standard error comes with its standard output.

        Raises the `ShedError` that keeps it from running.
        """
        execution = Execution(address, name, words, env=env, working_dir=working_dir, user=user)
        return cls(execution, words, merge=merge)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, as a shell counts it.

        Raises `TimeoutError` after `timeout` seconds, `BackendError` (EXEC_LOST), and `CommandError` (EXEC_FAILED) when
        the command did not start.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the command still runs after {timeout:g} s")
        if self._failure is not None:
            raise self._failure
        assert self._ended is not None
        started(Result(self._words, self._ended.code, b"", b""), self._ended)
        return self._ended.code

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing happens when it has ended."""
        self._messages.send(number)

    def close(self) -> None:
        """Hang the command up if it still runs, and close the pipes.  Can be called twice."""
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
