"""What the two flavours of running a command share: what is asked for, what came of it, and what may go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from shed.errors import ShedError
from shed.execstream import Exit

Command = str | Sequence[str]
"""Words that arrive as they are, or one text that ``sh -c`` runs."""
Input = bytes | str | IO[bytes] | None


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


def started(result: Result, ended: Exit) -> Result:
    """Return `result`.  Raises `CommandError` (EXEC_FAILED) when the command did not even start."""
    if ended.error:
        raise CommandError(result, ended.error, code="EXEC_FAILED")
    return result
