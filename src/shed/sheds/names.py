"""Keeping the folders of shared folders known in the guests, so that they need not ask for each part of each path.

For each running shed with a folder of the host, a program in the guest (`shed.guest.names`) is told which folders there
are and which have gone (`shed.sheds.foldernames`).  When its stream ends, it lets go of all: a guest that is told
nothing asks for everything.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping

from shed.backends.base import Connection, Stream
from shed.errors import BackendError, ShedError
from shed.execstream import ExecStream, Exit, Output, helper, request_frame
from shed.guest.protocol import PORT_EXEC, ProtocolError
from shed.sheds.foldernames import FolderNames
from shed.sheds.workspace import TARGET
from shed.threads import in_thread
from shed.untrusted import told

log = logging.getLogger(__name__)
_LOOK = 1.0
"""Seconds between two looks at which guests there are."""
_MOST_SAID = 4096
"""Longest frame that the program may send; an honest one says a line when it fails."""


async def keep_names(guests: Callable[[], Mapping[str, Connection]], folder: Callable[[str], str | None]) -> None:
    """Do so for the `guests` there are; `folder` returns the host's folder of a shed, or None.  Never returns."""
    kept: dict[str, tuple[Connection, asyncio.Task[None]]] = {}
    try:
        while True:
            present = guests()
            for name in [name for name, (connection, _) in kept.items() if present.get(name) is not connection]:
                kept.pop(name)[1].cancel()
            for name, connection in present.items():
                if name not in kept:
                    kept[name] = connection, asyncio.create_task(_keep(name, connection, folder))
            await asyncio.sleep(_LOOK)
    finally:
        tasks = [task for _, task in kept.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(name: str, connection: Connection, folder: Callable[[str], str | None]) -> None:
    """Keep one guest's names until its program ends, which leaves the guest as it would be without."""
    try:
        path = await in_thread(folder, name)
        if path is None:
            return
        stream = await connection.open(PORT_EXEC)
        try:
            why = await _Teller(stream).tell(path)
        finally:
            stream.close()
    except (ShedError, OSError, ProtocolError) as error:
        why = str(error)
    log.info("shed %s: the folders of its workspace are no longer kept: %s", name, told(why))


class _Teller:
    """The program in one guest."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._command = ExecStream(_MOST_SAID)
        self._room = asyncio.Event()
        self._over = False
        self._loop = asyncio.get_running_loop()

    async def tell(self, path: str) -> str:
        """Tell it the names at `path`; return why it has ended.  Raises `BackendError`, `OSError`, `ProtocolError`."""
        await self._stream.write(request_frame(helper("names", TARGET), user="0", working_dir="/"))
        names = FolderNames(path, self._say)
        done = asyncio.Event()
        problem: list[Exception] = []

        def run() -> None:
            try:
                names.run()
            except (ShedError, OSError, RuntimeError, concurrent.futures.CancelledError) as error:
                problem.append(error if isinstance(error, Exception) else RuntimeError("stopped"))
            with contextlib.suppress(RuntimeError):  # the server has ended
                self._loop.call_soon_threadsafe(done.set)

        threading.Thread(target=run, name="folder names", daemon=True).start()
        listening = asyncio.create_task(self._listen())
        ending = asyncio.create_task(done.wait())
        try:
            await asyncio.wait([listening, ending], return_when=asyncio.FIRST_COMPLETED)
            return listening.result() if listening.done() else str(*problem)
        finally:
            listening.cancel()
            ending.cancel()
            names.stop()
            self._over = True
            self._room.set()  # for what the thread waits for

    async def _listen(self) -> str:
        """Take what the program says until it ends; return how that was."""
        said = b""
        while True:
            while (event := self._command.next()) is not None:
                if isinstance(event, Exit):
                    lines = said.decode(errors="replace").splitlines()
                    return event.error or (lines[-1] if lines else f"exit code {event.code}")
                if isinstance(event, Output):
                    said = (said + event.data)[-_MOST_SAID:]
                else:
                    self._room.set()
            self._command.feed(await self._stream.read(_MOST_SAID))

    def _say(self, records: bytes) -> None:
        """Send records, from the other thread."""
        asyncio.run_coroutine_threadsafe(self._send(memoryview(records)), self._loop).result()

    async def _send(self, rest: memoryview) -> None:
        while rest:
            if self._over:
                raise BackendError("the program that holds folders has ended")
            self._room.clear()
            if size := min(len(rest), self._command.room):
                await self._stream.write(self._command.stdin(rest[:size]))
                rest = rest[size:]
            else:
                await self._room.wait()
