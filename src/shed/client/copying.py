"""Copying files and folders between this machine and sheds, by the rules of ``docker cp``.

A copy is a tar stream from one end to the other; either end is a folder here (`shed.guest.archive` in this process),
the same code run by the runtime's Python in a shed, whatever its image has, or a stream of the caller's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple, cast

from shed.client.address import Address
from shed.client.execution import Execution
from shed.errors import ShedError, UsageError
from shed.execstream import Exit, helper
from shed.guest import archive
from shed.names import check_shed_name
from shed.progress import BytesEvent, Event, WarningEvent
from shed.untrusted import load_object, told

_BROKEN_PIPE = 128 + 13
_MISSING = os.strerror(errno.ENOENT)
_READ = 1 << 16
_MOST_SAID = 1 << 20
"""Bytes of what an end in a shed says of itself that are looked at."""
_REASON_SECONDS = 2.0
"""How long a receiver that failed waits for the sender, which may have been the reason."""
Sink = Callable[[Event], None]


class CopyError(ShedError):
    """Something could not be read, or not be written where it was to go."""

    code = "COPY_FAILED"


def said_by_helper(lines: Iterable[str]) -> tuple[list[str], str, str]:
    """Return what `shed.guest.archive` in a shed has told: its warnings, its error, and the first of other words."""
    warnings: list[str] = []
    problem = words = ""
    for line in lines:
        try:
            says = load_object(line.encode())
            if "warning" in says:
                warnings.append(told(says["warning"]))
            else:
                problem = problem or told(says["error"])
        except (ValueError, KeyError):
            words = words or told(line)
    return warnings, problem, words


class Place(NamedTuple):
    """One end of a copy: a path in the shed `name`, or on this machine when that is empty.

    The path ``-`` of this machine is a stream.
    """

    name: str
    path: str

    @property
    def is_stream(self) -> bool:
        """Whether it is a tar stream, by standard input or output."""
        return not self.name and self.path == "-"


def parse_place(text: str) -> Place:
    """Return what ``NAME:PATH`` or ``PATH`` means; one that begins with ``/`` or ``.`` is of this machine.

    Raises `UsageError`.
    """
    name, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        if not text:
            raise UsageError("the path to copy is empty", hint="is a variable in it not set?")
        return Place("", text)
    return Place(check_shed_name(name), path or ".")


class Copy:
    """One copy; `run` does it, with the servers that `find` tells for the names of sheds.

    With `follow` a link that is to be copied is followed, with `owners` files keep their owners.  In a shed `user` does
    it: by default root when owners are kept, else the shed's usual one.  `on_start` is called with the name of a shed
    that must be started first.
    """

    def __init__(
        self,
        find: Callable[[str], Address],
        source: Place,
        target: Place,
        *,
        follow: bool = False,
        owners: bool = False,
        user: str | None = None,
        on_event: Sink,
        on_start: Callable[[str], None] = lambda name: None,
    ) -> None:
        if not source.name and not target.name:
            raise UsageError("neither of the two is in a shed", hint="write NAME:PATH for what is in one")
        self._addresses = {place.name: find(place.name) for place in (source, target) if place.name}
        self._source, self._target = source, target
        self._follow = follow
        self._options = ["owners"] if owners else []
        self._user = user or ("root" if owners else None)
        self._on_event = on_event
        self._on_start = on_start
        self._copied = self._content = 0
        self._given_up = False
        self._executions: list[Execution] = []

    def run(self) -> int:
        """Copy; return how many bytes are in the files, or how many of tar went by where one end is a stream.

        It is 0 between two sheds.  Raises the `ShedError` of the end that failed first.
        """
        receiving, sending = os.pipe()
        problems: list[BaseException] = []
        sender = threading.Thread(target=self._send_all, args=(sending, problems), daemon=True)
        sender.start()
        failed: ShedError | None = None
        with open(receiving, "rb", buffering=0) as incoming:
            try:
                self._receive(incoming)
            except ShedError as error:
                failed = error
        sender.join(None if failed is None else _REASON_SECONDS)
        for problem in [*problems, failed]:
            if problem is not None:
                raise problem
        return self._copied if self._source.is_stream or self._target.is_stream else self._content

    def give_up(self) -> None:
        """Have `run`, in another thread, fail, whatever the sheds do."""
        self._given_up = True
        for execution in [*self._executions]:
            execution.hang_up()

    def _send_all(self, sending: int, problems: list[BaseException]) -> None:
        with open(sending, "wb", buffering=0) as out:
            try:
                self._send(out)
            except BrokenPipeError:
                pass  # the receiver has failed, and says why
            except BaseException as error:  # noqa: BLE001  the other thread raises it
                problems.append(error)

    def _send(self, out: BinaryIO) -> None:
        source = self._source
        if source.is_stream:
            with open(0, "rb", buffering=0, closefd=False) as stream:
                self._pass_on(stream, out)
        elif source.name:
            self._in_shed(source, ["pack", source.path, "", *(["follow"] if self._follow else [])], stdout=out.fileno())
        else:
            with _explained(source):
                self._content = archive.pack(
                    source.path, cast(BinaryIO, Counted(out, self._count)), follow=self._follow, warn=self._warn
                )

    def _receive(self, incoming: BinaryIO) -> None:
        target, called = self._target, archive.root_name(self._source.path)
        if target.is_stream:
            with open(1, "wb", buffering=0, closefd=False) as out:
                self._pass_on(incoming, out)
        elif target.name:
            do = "extract" if self._source.is_stream else "unpack"
            self._in_shed(target, [do, target.path, called, *self._options], stdin=incoming.fileno())
        else:
            counted = Counted(incoming, self._count)
            with _explained(target):
                self._content = archive.unpack(
                    counted, target.path, called=called, owners=bool(self._options), warn=self._warn
                )

    def _pass_on(self, source: BinaryIO, target: BinaryIO) -> None:
        counted = Counted(source, self._count)
        while data := counted.read(_READ):
            _write_all(target, data)

    def _in_shed(self, place: Place, words: list[str], *, stdin: int | None = None, stdout: int | None = None) -> None:
        """Run one end in a shed, and tell what it tells."""
        command = helper("archive", *words)
        with tempfile.TemporaryFile() as said:
            with Execution(
                self._addresses[place.name],
                place.name,
                command,
                user=self._user,
                on_start=lambda: self._on_start(place.name),
            ) as execution:
                self._executions.append(execution)
                if self._given_up:
                    execution.hang_up()
                ended = execution.run(
                    stdin=stdin, stdout=said.fileno() if stdout is None else stdout, stderr=said.fileno()
                )
            said.seek(0)
            self._conclude(place, ended, said.read(_MOST_SAID).decode(errors="replace").splitlines())

    def _conclude(self, place: Place, ended: Exit, lines: list[str]) -> None:
        name = place.name
        warnings, problem, words = said_by_helper(lines)
        error = ended.error or words
        for text in warnings:
            self._warn(f"{name}: {text}")
        if problem:
            raise CopyError(f"{name}: {problem}", hint=self._hint(place, problem))
        if ended.code == _BROKEN_PIPE and not error:
            raise BrokenPipeError
        if ended.code:
            raise CopyError(
                f"copying in shed {name!r} failed: {told(lines[-1]) if lines else error or f'exit code {ended.code}'}",
                hint="if its image was made by an older shed, pull or build it again",
            )

    def _hint(self, place: Place, error: str) -> str | None:
        if "Permission denied" in error and self._user is None:
            return "--user root may do everything"
        return _look(place) if _MISSING in error else None

    def _warn(self, text: str) -> None:
        self._on_event(WarningEvent(text))

    def _count(self, size: int) -> None:
        self._copied += size
        self._on_event(BytesEvent("copied", self._copied, None))


class Counted:
    """A pipe's end that tells how many bytes go through it.

    What it reads is as much as was asked for, until the end.
    """

    def __init__(self, pipe: BinaryIO, count: Callable[[int], None]) -> None:
        self._pipe = pipe
        self._count = count

    def read(self, size: int) -> bytes:
        """Read `size` bytes, fewer at the end alone."""
        data = self._pipe.read(size)
        while 0 < len(data) < size and (more := self._pipe.read(size - len(data))):
            data += more
        self._count(len(data))
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Read what is there, at least one byte until the end."""
        size = self._pipe.readinto(buffer)  # type: ignore[attr-defined]  # of a pipe that is not buffered
        self._count(size)
        return int(size)

    def write(self, data: bytes) -> int:
        """Write all of it."""
        _write_all(self._pipe, data)
        self._count(len(data))
        return len(data)


def _write_all(target: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def _look(place: Place) -> str:
    there = f"shed exec {place.name} -- " if place.name else ""
    return f"see what there is: {there}ls {shlex.quote(str(PurePosixPath(place.path).parent))}"


@contextlib.contextmanager
def _explained(place: Place) -> Iterator[None]:
    try:
        yield
    except archive.ArchiveError as error:
        raise CopyError(str(error), hint=_look(place) if _MISSING in str(error) else None) from None


def copy(address: Address, source: tuple[str, str], target: tuple[str, str], *, user: str | None = None) -> None:
    """Copy between this machine and a shed; each place is a name, empty for this machine, and a path."""
    Copy(lambda name: address, Place(*source), Place(*target), user=user, on_event=lambda event: None).run()
