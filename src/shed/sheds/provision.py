"""Commands of users that make a shed ready: one after another, with a log of all that they say."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from shed.errors import DataError
from shed.execstream import Output, request_frame
from shed.fsutil import storage_errors
from shed.progress import Progress
from shed.sheds.steps import Open, run_step
from shed.untrusted import told

_MOST_LOG = 16 << 20
"""Bytes of a log; what comes after them is not kept."""
_TAIL = 2000
"""Bytes of what a command has said last that its error shows."""
_SHOWN = 60
"""Characters of a command that a phase or an error shows."""


async def provision(open_exec: Open, commands: Sequence[str], log: Path, *, limit: float, progress: Progress) -> None:
    """Run `commands` by ``sh -ec``, each when the one before has succeeded, within `limit` seconds.

    Raises `DataError` (PREBUILD_FAILED) for the first that fails, `BackendError` (AGENT_PROTOCOL) when what comes makes
    no sense, `StorageError`, and what `progress` does when nobody waits any more.
    """
    end = time.monotonic() + limit
    with storage_errors(log), _opened(log) as file:

        def hear(output: Output) -> None:
            if file.tell() < _MOST_LOG:
                file.write(output.data)

        for number, command in enumerate(commands, 1):
            shown = _short(command)
            progress.phase("command", f"command {number} of {len(commands)}: {shown}")
            progress.abandoned.check()
            file.write(f"+ {command}\n".encode())
            what = f"command {number}, {shown!r}"
            try:
                done = await run_step(
                    open_exec, request_frame(["sh", "-ec", command]), hear, end=end, abandoned=progress.abandoned
                )
            except TimeoutError:
                raise _failed(f"{what}, did not end: {limit:g} s were given to all", log, b"") from None
            if done.code:
                raise _failed(
                    f"{what}, ended with {done.code}" + (f": {done.error}" if done.error else ""), log, _end_of(log)
                )


def _opened(log: Path) -> BinaryIO:
    return open(log, "wb", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600))


def _short(command: str) -> str:
    line = told(command.strip().split("\n")[0])
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _end_of(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return file.read()


def _failed(why: str, log: Path, tail: bytes) -> DataError:
    lines = [told(line) for line in tail.decode(errors="replace").splitlines()[-5:] if line.strip()]
    said = "".join(f"\n  {line}" for line in lines if not line.startswith("+ "))
    return DataError(
        f"{why}{said}", code="PREBUILD_FAILED", hint=f"all that the commands said is in {log} on the server's machine"
    )
