"""Running external commands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shed.errors import ShedError, UnavailableError

log = logging.getLogger(__name__)
Argument = str | Path
PASSED_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE",
)  # fmt: skip
_TAIL = 2000
_GRACE = 5.0
"""Seconds that an interrupted command has to clean up."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a command: its exit status (negative: killed by that signal) and what it printed."""

    returncode: int
    stdout: bytes
    stderr: bytes


class ToolError(ShedError):
    """An external command failed; the message ends with its last output."""

    code = "TOOL_FAILED"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command: `PASSED_ENVIRONMENT` of this process, the locale C.UTF-8, and `extra`."""
    env = {key: os.environ[key] for key in PASSED_ENVIRONMENT if key in os.environ}
    return {"LC_ALL": "C.UTF-8", **env, **(extra or {})}


def run(
    command: Sequence[Argument],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    timeout: float | None = None,
    hint: str | None = None,
) -> Completed:
    """Run `command` to its end and return what it printed.

    Its stdin is empty unless given.  `timeout` is in seconds.  Raises `UnavailableError` (TOOL_MISSING) with `hint`
    when the program is not installed, and `ToolError` when it takes too long or, with `check`, when it fails.
    """
    words = [str(word) for word in command]
    log.debug("run: %s", shlex.join(words))
    try:
        done = subprocess.run(
            words,
            check=False,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment(env),
            cwd=cwd,
            timeout=timeout,
        )
    except FileNotFoundError:
        raise missing_tool(words[0], hint) from None
    except subprocess.TimeoutExpired:
        raise ToolError(
            f"{words[0]} did not end within {timeout:g} s", hint=f"run it by hand: {shlex.join(words)}"
        ) from None
    result = Completed(done.returncode, done.stdout, done.stderr)
    if check and result.returncode:
        raise failed(words, result)
    return result


async def run_async(
    command: Sequence[Argument], *, env: Mapping[str, str] | None = None, check: bool = True, hint: str | None = None
) -> Completed:
    """Do as `run` does, without blocking the event loop.  When the caller is cancelled, the command is killed."""
    words = [str(word) for word in command]
    log.debug("run: %s", shlex.join(words))
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment(env)
        )
    except FileNotFoundError:
        raise missing_tool(words[0], hint) from None
    try:
        stdout, stderr = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    result = Completed(process.returncode or 0, stdout, stderr)
    if check and result.returncode:
        raise failed(words, result)
    return result


def run_streaming(
    command: Sequence[Argument],
    *,
    show: Callable[[bytes], object] | None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    hint: str | None = None,
) -> None:
    """Run `command` to its end, and pass what it prints on either stream to `show` at once.

    Without `show`, the end of the output goes into the error, if the command fails.  The command gets its own process
    group: an exception here, such as an interrupt, ends all of its processes.  Raises as `run` does.
    """
    words = [str(word) for word in command]
    log.debug("run: %s", shlex.join(words))
    tail = b""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment(env),
            process_group=0,
        )
    except FileNotFoundError:
        raise missing_tool(words[0], hint) from None
    with process:
        assert process.stdout is not None
        try:
            while data := os.read(process.stdout.fileno(), 1 << 16):
                if show:
                    show(data)
                else:
                    tail = (tail + data)[-4 * _TAIL :]
            process.wait()
        except BaseException:
            _end_group(process)
            raise
    if process.returncode:
        raise failed(words, Completed(process.returncode, b"", tail))


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process group in three steps.

    First the processes that its leader started, so that the leader sees them fail and cleans up.  Then the leader.
    Then all that are left, with SIGKILL.
    """
    try:
        for number, pids in ((signal.SIGTERM, _group(process.pid) - {process.pid}), (signal.SIGINT, {process.pid})):
            for pid in pids if process.poll() is None else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if pids:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=_GRACE)  # keep reading: a process that cannot write cannot clean up
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _group(leader: int) -> set[int]:
    """Return the processes of a group, by /proc; none where there is no /proc."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            if int(path.read_bytes().rpartition(b")")[2].split()[2]) == leader:
                found.add(int(path.parent.name))
    return found


def missing_tool(program: str, hint: str | None) -> UnavailableError:
    """Return the error for a program that is not installed."""
    return UnavailableError(f"{program} is not installed", code="TOOL_MISSING", hint=hint)


def failed(words: Sequence[str], result: Completed) -> ToolError:
    """Return the error for a command that failed, with its last output.

    The command is logged in a form that can be pasted into a shell.
    """
    log.debug("failed (%d): %s", result.returncode, shlex.join(words))
    if result.returncode < 0:
        how = f"was killed by {signal.Signals(-result.returncode).name}"
    else:
        how = f"failed with exit code {result.returncode}"
    tail = (result.stderr or result.stdout).decode(errors="replace").strip()[-_TAIL:]
    return ToolError(f"{words[0]} {how}{': ' + tail if tail else ''}", hint=f"run it by hand: {shlex.join(words)}")
