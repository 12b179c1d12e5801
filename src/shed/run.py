"""The one way to run an external command."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shed.errors import ShedError, UnavailableError

log = logging.getLogger(__name__)
Argument = str | Path
PASSED_ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
                      "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE",
                      "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY",
                      "CONTAINER_HOST", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF",
                      "REGISTRY_AUTH_FILE", "DBUS_SESSION_BUS_ADDRESS")  # fmt: skip
"""Of these the last two lines tell container engines where they are and how they are set."""
_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished command left: its exit status (negative: killed by that signal) and captured output."""

    returncode: int
    stdout: bytes
    stderr: bytes


class CommandError(ShedError):
    """An external command failed; the message holds what it printed last."""

    code = "COMMAND_FAILED"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment commands get: a short list of variables of ours, C.UTF-8, and `extra`."""
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

    No stdin unless given; `timeout` is in seconds.  Raises `UnavailableError` (TOOL_MISSING) when the program is not there, with `hint`,
    and `CommandError` when it takes too long or, with `check`, when it fails.
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
        raise CommandError(f"{words[0]} did not end within {timeout:g} s", hint=f"run it by hand: {shlex.join(words)}") from None
    result = Completed(done.returncode, done.stdout, done.stderr)
    if check and result.returncode:
        raise failed(words, result)
    return result


async def run_async(
    command: Sequence[Argument], *, env: Mapping[str, str] | None = None, check: bool = True, hint: str | None = None
) -> Completed:
    """As `run`, without blocking the event loop; when the caller is cancelled the command is killed."""
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


def missing_tool(program: str, hint: str | None) -> UnavailableError:
    """Return the error for a program that is not installed."""
    return UnavailableError(f"{program} is not installed", code="TOOL_MISSING", hint=hint)


def failed(words: Sequence[str], result: Completed) -> CommandError:
    """Return the error for a command that ended badly, with its last output, and log the command so that it can be pasted."""
    log.debug("failed (%d): %s", result.returncode, shlex.join(words))
    if result.returncode < 0:
        how = f"was killed by {signal.Signals(-result.returncode).name}"
    else:
        how = f"failed with exit code {result.returncode}"
    tail = (result.stderr or result.stdout).decode(errors="replace").strip()[-_TAIL:]
    return CommandError(f"{words[0]} {how}{': ' + tail if tail else ''}", hint=f"run it by hand: {shlex.join(words)}")
