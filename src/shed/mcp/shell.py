"""Scripts in sheds, for what an agent asks: bounded in time and output, and killed when nobody wants them any more.

All of a session's scripts in a shed share a folder there, below ``/tmp``: it has the outputs of commands, and notes the
working folder.  So that goes with the shed through a rollback, and into a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from shed.client.address import Address
from shed.client.aio.process import AsyncProcess
from shed.client.commands import Result, assignments, started
from shed.errors import DataError, UnavailableError
from shed.execstream import Exit
from shed.sizes import format_size

RUNTIME = "/run/shed-runtime/bin/busybox"
"""Works in every image."""
SECONDS = 60.0
"""How long a script may take that is no command of the agent's."""
_CHUNK = 1 << 16
_SIGKILL = 9
_PRELUDE = """\
d=${TMPDIR:-/tmp}/shed-mcp-$1
[ -d "$d" ] || mkdir -p -m 700 -- "$d" || exit 125
[ -f "$d/cwd" ] && IFS= read -r w <"$d/cwd" && cd -- "$w" 2>/dev/null
shift
"""
"""Takes the session's word from the parameters, has its folder in $d, and goes to its working folder."""


class Shell:
    """Runs scripts in the sheds of the server at `address`, for the session `word`."""

    def __init__(self, address: Address, word: str) -> None:
        self._address = address
        self._word = word
        self._used: set[str] = set()

    def used(self, shed: str) -> bool:
        """Whether anything was run in a shed."""
        return shed in self._used

    async def clear(self, shed: str) -> None:
        """Remove the session's folder from a shed."""
        await self.run(shed, 'cd / && rm -rf -- "$d"', most=_CHUNK, seconds=10)

    async def start(self, shed: str, script: str, *words: str, env: Mapping[str, str] | None = None) -> AsyncProcess:
        """Start a script with the parameters `words`; what it says as an error comes with its output."""
        self._used.add(shed)
        command = [RUNTIME, "sh", "-c", _PRELUDE + script, "sh", self._word, *words]
        return await AsyncProcess.start(self._address, shed, command, env=assignments(env), merge=True)

    async def run(
        self, shed: str, script: str, *words: str, stdin: bytes = b"", most: int, seconds: float = SECONDS
    ) -> tuple[int, bytes]:
        """Run a script to its end; return its exit code and its output.

        Raises `DataError` for an output of more than `most` bytes, and `UnavailableError` after `seconds`.
        """
        process = await self.start(shed, script, *words)
        try:
            async with asyncio.timeout(seconds):
                feeding = asyncio.create_task(_feed(process, stdin))
                try:
                    output = await read(process, most + 1)
                    if len(output) > most:
                        raise DataError(
                            f"that is more than {format_size(most)}", hint="ask for less of it, or use exec"
                        )
                    ended = await process.ended()
                finally:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)
        except TimeoutError:
            raise UnavailableError(
                f"the shed {shed} has not answered in {seconds:g} s", hint="try again, or see what it does: exec"
            ) from None
        finally:
            await end(process)
        return check(shed, ended).code, output


def check(shed: str, ended: Exit) -> Exit:
    """Return `ended`.  Raises `CommandError` (EXEC_FAILED) when the script did not even start."""
    started(Result((shed,), ended.code, b"", b""), ended)
    return ended


async def read(process: AsyncProcess, most: int) -> bytes:
    """Return what a process writes up to its end, the first `most` bytes of it."""
    found = bytearray()
    while len(found) < most and (data := await process.stdout.read(_CHUNK)):
        found += data
    return bytes(found[:most])


async def end(process: AsyncProcess) -> None:
    """Kill what still runs of a process, and leave it."""
    process.signal(_SIGKILL)
    await process.close()


async def _feed(process: AsyncProcess, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # what it says of itself tells why
        await process.stdin.write(data)
        await process.stdin.close()
