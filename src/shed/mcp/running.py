"""Commands of an agent: each one writes into a file in its shed, of which the agent is shown a bounded part.

A command in the background goes on while others run, and is asked for by its number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from shed.client.aio.process import AsyncProcess
from shed.errors import ForbiddenError, NotFoundError, ShedError, UsageError
from shed.mcp import shell
from shed.mcp.shell import Shell
from shed.untrusted import told

SHOWN = 30_000
"""Bytes of an output that are shown; of a longer one its first third, and its end."""
MOST = 16
"""How many commands of a session may run at one time."""
_KEPT = 64
"""How many that have ended can still be asked for."""
_SLACK = 4096
"""Bytes that a script says beside what it shows."""
_GRACE = 5.0
"""Seconds that a command which was killed has for its last words."""
_SHOW = f"""\
show() {{
    n=$(wc -c <"$1")
    if [ "$n" -le {SHOWN} ]; then cat "$1"; return; fi
    head -c {SHOWN // 3} "$1"
    printf '\\n[... %s of %s bytes are left out; all of it is in %s ...]\\n' "$((n - {SHOWN}))" "$n" "$1"
    tail -c {SHOWN - SHOWN // 3} "$1"
}}
"""
_RUN = (
    _SHOW
    + """\
o=$d/$1
if [ -n "$2" ]; then cd -- "$2" 2>"$o" || { echo -; exit 125; }; fi
if command -v bash >/dev/null 2>&1; then s=bash; elif [ -x /bin/sh ]; then s=/bin/sh; else s=sh; fi
"$s" -c '_shed_cwd=$1/cwd; trap "pwd >\\"\\$_shed_cwd\\"" EXIT; shift; eval "$1"' "$s" "$d" "$3" </dev/null >"$o" 2>&1
c=$?
w=
[ -f "$d/cwd" ] && IFS= read -r w <"$d/cwd"
printf '+%s\\n' "$w"
show "$o"
exit $c
"""
)
"""Its words: name of the output's file, folder or nothing, command.  Writes a line first: plus and the working folder,
or a dash when the folder could not be entered."""
_LOOK = _SHOW + 'o=$d/$1; [ -f "$o" ] || exit 0; show "$o"'
_MORE = f'o=$d/$1; [ -f "$o" ] || exit 0; tail -c "+$2" "$o" | head -c {SHOWN}'


class Running:
    """One command, its number, and what is known of it."""

    def __init__(self, number: int, shed: str, command: str, process: AsyncProcess) -> None:
        self.number = number
        self.shed = shed
        self.command = command
        self.process = process
        self.seen = 0
        """Bytes of its output that were shown."""
        self._began = time.monotonic()
        self._took: float | None = None
        self._task = asyncio.create_task(self._follow())
        self.code: int | None = None
        """Its exit code; None while it runs, and when it was lost."""
        self.late = False
        """Whether it was killed because its time was up."""
        self.lost = ""
        """Why its end is not known; empty when it is."""
        self.output = b""
        """What its script wrote: the working folder, and the output as it is shown."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    async def _follow(self) -> None:
        try:
            self.output = await shell.read(self.process, SHOWN + _SLACK)
            if len(self.output) < SHOWN + _SLACK:
                self.code = shell.check(self.shed, await self.process.ended()).code
            else:
                self.lost = "its shed says more than was asked"
        except ShedError as error:
            self.lost = error.message
        finally:
            self._took = time.monotonic() - self._began
            await shell.end(self.process)

    async def wait(self, seconds: float) -> bool:
        """Wait for its end; say whether it came within `seconds`."""
        await asyncio.wait([self._task], timeout=seconds)
        return self.over

    async def kill(self) -> None:
        """Kill its process group; what has left that goes on."""
        if not self.over:
            await self.process.kill()
            await self.wait(_GRACE)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def state(self) -> str:
        """Return how it is, in a few words."""
        if not self.over:
            return f"running since {time.monotonic() - self._began:.0f} s"
        how = f"lost: {self.lost}" if self.lost else f"exit code {self.code}"
        return f"{how}, after {self._took or 0:.1f} s"


class Commands:
    """The commands of one session."""

    def __init__(self, run: Shell) -> None:
        self._shell = run
        self._all: dict[int, Running] = {}
        self._last = 0
        self._starting = 0

    async def start(self, shed: str, command: str, folder: str = "", env: Mapping[str, str] | None = None) -> Running:
        """Start a command in the working folder, or in `folder`.  Raises `ForbiddenError` when too many run."""
        if sum(not one.over for one in self._all.values()) + self._starting >= MOST:
            raise ForbiddenError(f"{MOST} commands run already", hint="kill one: process")
        self._last = number = self._last + 1
        self._starting += 1
        try:
            process = await self._shell.start(shed, _RUN, str(number), folder, command, env=env)
        finally:
            self._starting -= 1
        running = self._all[number] = Running(number, shed, command, process)
        for old in [one.number for one in self._all.values() if one.over][:-_KEPT]:
            del self._all[old]
        return running

    async def run(
        self, shed: str, command: str, seconds: float, folder: str = "", env: Mapping[str, str] | None = None
    ) -> tuple[Running, str, bytes]:
        """Run a command; return it, its working folder then and what is to be shown of its output.

        It is killed after `seconds`, and when this is cancelled.  Raises `UsageError` for a folder that is not there.
        """
        running = await self.start(shed, command, folder, env)
        try:
            if not await running.wait(seconds):
                running.late = True
                await running.kill()
                return running, "", await self.look(running)
        finally:
            await running.kill()
            del self._all[running.number]
        kept, _, output = running.output.partition(b"\n")
        if kept == b"-":
            raise UsageError(f"{told(folder)} cannot be entered", hint="name a folder that is there: find")
        return running, told(kept[1:].decode(errors="replace")), output

    async def look(self, running: Running) -> bytes:
        """Return what is to be shown of all that a command has written so far."""
        _, output = await self._shell.run(running.shed, _LOOK, str(running.number), most=SHOWN + _SLACK)
        return output

    async def more(self, running: Running) -> bytes:
        """Return what a command has written since this was asked last, `SHOWN` bytes of it at most."""
        place = str(running.seen + 1)
        _, output = await self._shell.run(running.shed, _MORE, str(running.number), place, most=SHOWN + _SLACK)
        running.seen += len(output)
        return output

    def get(self, number: int) -> Running:
        """Return a command by its number.  Raises `NotFoundError`."""
        if (found := self._all.get(number)) is None:
            raise NotFoundError(f"there is no command {number}", hint="see which there are: list")
        return found

    def of(self, shed: str) -> list[Running]:
        """Return the commands in a shed, in the order of their numbers."""
        return [one for one in self._all.values() if one.shed == shed]

    async def end(self, shed: str | None = None) -> None:
        """Kill all commands, or those in one shed."""
        await asyncio.gather(*(one.kill() for one in self._all.values() if shed in (None, one.shed)))
