"""A command in a shed whose input and output are this program's: bounded by what hears it."""

from __future__ import annotations

import os
import threading

from shed.client.address import Address
from shed.client.execution import Execution
from shed.execstream import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

_READ = 1 << 16
_MOST_SAID = 1 << 16
"""Bytes of the end of what a command says of itself that are kept."""


def ask(
    address: Address,
    name: str,
    command: list[str],
    *,
    hear: Callable[[bytes], object],
    feed: Callable[[BinaryIO], object] | None = None,
    env: Sequence[str] = (),
    folder: str | None = None,
    user: str | None = None,
    on_start: Callable[[], None],
) -> tuple[Exit, list[str]]:
    """Run a command in the shed `name`; return how it ended, and the last lines of its standard error.

    `hear` gets what it prints, and `feed` writes its input, each in a thread of its own.  What either raises ends the
    command, and is raised; that nobody takes the input is the command's affair.  Raises what an `Execution` does.
    """
    said = bytearray()

    def keep(data: bytes) -> None:
        said.extend(data)
        del said[:-_MOST_SAID]

    reader, listener = Reader(hear), Reader(keep)
    feeder = None if feed is None else _Feeder(feed)
    threads: list[_Piped] = [reader, listener, *([feeder] if feeder else [])]
    try:
        with Execution(
            address, name, command, env=list(env), working_dir=folder, user=user, on_start=on_start
        ) as execution:
            ended = execution.run(stdin=feeder.end if feeder else None, stdout=reader.end, stderr=listener.end)
    finally:
        for thread in threads:
            os.close(thread.end)
        for thread in threads:
            thread.join()
    for thread in threads:
        if thread.problem is not None:
            raise thread.problem
    return ended, [line for line in said.decode(errors="replace").splitlines() if line.strip()]


class _Piped(threading.Thread):
    """A thread at one end of a pipe."""

    end: int
    """The other one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.problem: BaseException | None = None


class Reader(_Piped):
    """Has `hear` hear what is written to `end`."""

    def __init__(self, hear: Callable[[bytes], object]) -> None:
        super().__init__()
        self._hear = hear
        self._source, self.end = os.pipe()
        self.start()

    def run(self) -> None:
        """Read to the end."""
        with open(self._source, "rb", buffering=0) as source:  # closed, it ends who writes
            try:
                while data := source.read(_READ):
                    self._hear(data)
            except BaseException as error:  # noqa: BLE001  the other thread raises it
                self.problem = error


class _Feeder(_Piped):
    """Has `feed` write what is read from `end`."""

    def __init__(self, feed: Callable[[BinaryIO], object]) -> None:
        super().__init__()
        self._feed = feed
        self.end, self._sink = os.pipe()
        self.start()

    def run(self) -> None:
        try:
            with open(self._sink, "wb") as sink:
                self._feed(sink)
        except BrokenPipeError:
            pass  # who has left says why
        except BaseException as error:  # noqa: BLE001  as above
            self.problem = error
