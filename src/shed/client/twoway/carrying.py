"""Doing what a plan says, on both sides; each thing is noted in the tree when it is done, and not before."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from shed.client.copying import CopyError
from shed.client.twoway.reconcile import Plan
from shed.client.twoway.remote import FailedError, Remote, Result
from shed.client.twoway.tree import HERE, THERE, Mark, Node, Tree, identity_of, is_executable
from shed.errors import StorageError
from shed.replica import wire
from shed.replica.entry import FILE, FOLDER, LINK, ChangedError, Entry
from shed.replica.files import Incoming, Reading
from shed.replica.folder import Folder

_FREE = 256 << 20
"""Bytes that a shed leaves free on the disk of this machine."""
_NOT_EMPTY = os.strerror(errno.ENOTEMPTY)


@dataclass
class Outcome:
    """What was done."""

    sent: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    deleted_here: list[str] = field(default_factory=list)
    deleted_there: list[str] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    """Conflicts: where what the shed had is kept now, and what it was called."""
    left: dict[str, str] = field(default_factory=dict)
    """What the shed has and does not come here, and why."""
    failed: dict[str, str] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    """What somebody changed in the very moment: to be looked at again."""
    bytes: int = 0

    def add(self, other: Outcome) -> None:
        """Take what was done later."""
        for name in ("sent", "received", "deleted_here", "deleted_there"):
            getattr(self, name).extend(getattr(other, name))
        self.aside |= other.aside
        self.left, self.failed, self.again = other.left, other.failed, other.again
        self.bytes += other.bytes


class Carrier:
    """Carries out plans for `tree`, between the folder `here` and the one of `remote`."""

    def __init__(self, tree: Tree, here: Folder, remote: Remote, on_bytes: Callable[[int], None]) -> None:
        self._tree = tree
        self._here = here
        self._remote = remote
        self._on_bytes = on_bytes
        self._umask = _umask()
        self._arriving: set[_Arrival] = set()
        """Files that are under way here."""
        self.outcome = Outcome()

    def carry_out(self, plan: Plan) -> None:
        """Do it.  Raises `CopyError`, `StorageError` when the disk of this machine is full."""
        for path in plan.remove[THERE]:
            self._remove_there(path)
        for path in plan.remove[HERE]:
            self._remove_here(path)
        self._remote.finish()
        for path in plan.carry[THERE]:
            self._send(path)
        self._remote.finish()
        try:
            for path in plan.carry[HERE]:
                self._receive(path)
            self._remote.finish()
        finally:
            for arrival in self._arriving:
                arrival.incoming.abort()
            self._here.leave()

    def move_aside(self, path: str, new: str) -> None:
        """Give what the shed has at `path` another name there."""
        entry = self._node(path).now[THERE]
        assert entry is not None

        def then(result: Result | Exception) -> None:
            if self._succeeded(path, result):
                assert isinstance(result, Result)
                target = "".join(path.rpartition("/")[:2]) + new
                self._tree.move_there(path, target, _like(entry, result.entry))
                self.outcome.aside[target] = path

        self._remote.request(wire.MOVE, wire.fields(entry.encode(), path, new), then)
        self._remote.finish()

    def _node(self, path: str) -> Node:
        node = self._tree.find(path)
        assert node is not None
        return node

    def _succeeded(self, path: str, result: Result | Exception) -> bool:
        if isinstance(result, ChangedError):
            self.outcome.again.add(path)
        elif isinstance(result, FailedError):
            self.outcome.failed[path] = f"in the shed: {result}"
        return isinstance(result, Result)

    def _problem(self, path: str, error: OSError | ChangedError) -> None:
        """Note why something failed here."""
        if isinstance(error, ChangedError | FileNotFoundError | NotADirectoryError):
            self.outcome.again.add(path)
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"cannot write {self._here.path}/{path}: {error.strerror}", hint="make room") from None
        else:
            self.outcome.failed[path] = str(error.strerror)

    def _remove_there(self, path: str) -> None:
        node = self._node(path)
        entry = node.now[THERE]
        assert entry is not None

        def then(result: Result | Exception) -> None:
            if isinstance(result, FailedError) and entry.kind == FOLDER and str(result) == _NOT_EMPTY:
                return  # what is left out is in it
            if self._succeeded(path, result):
                self._gone(path, node, THERE)

        self._remote.request(wire.REMOVE, wire.fields(entry.encode(), path), then)

    def _remove_here(self, path: str) -> None:
        node = self._node(path)
        entry = node.now[HERE]
        assert entry is not None
        try:
            self._here.remove(path, entry)
        except (OSError, ChangedError) as error:
            if not (isinstance(error, OSError) and error.errno == errno.ENOTEMPTY):
                self._problem(path, error)
            return
        self._gone(path, node, HERE)

    def _gone(self, path: str, node: Node, side: int) -> None:
        node.now[side] = node.ids[side] = None
        if node.now == [None, None]:
            node.base = None
        (self.outcome.deleted_here if side == HERE else self.outcome.deleted_there).append(path)

    def _in_the_way(self, path: str, entry: Entry, old: Entry | None) -> bool:
        """Tell whether a folder that could not be removed stands in the place of a file or link, and note that."""
        if old is None or old.kind != FOLDER or entry.kind == FOLDER:
            return False
        self.outcome.failed.setdefault(path, "a folder is in its place, with what is left out")
        return True

    def _send(self, path: str) -> None:
        """Bring what is here into the shed."""
        node = self._node(path)
        entry, old = node.now[HERE], node.now[THERE]
        assert entry is not None
        if self._in_the_way(path, entry, old):
            return
        expected = old.encode() if old is not None else b""
        if entry.kind == FOLDER:
            if old is None:
                payload = wire.fields(b"%o" % (entry.mode & 0o777), path)
                self._remote.request(wire.MAKE, payload, partial(self._sent, path, node, entry))
        elif entry.kind == LINK:
            payload = wire.fields(expected, entry.mtime, path, entry.link)
            self._remote.request(wire.LINK, payload, partial(self._sent, path, node, entry))
        else:
            self._send_file(path, node, entry, expected)

    def _send_file(self, path: str, node: Node, entry: Entry, expected: bytes) -> None:
        try:
            reading = self._here.read(path)
        except (OSError, ChangedError) as error:
            self._problem(path, error)
            return
        if not reading.entry.same(entry):
            reading.close()
            self.outcome.again.add(path)
            return
        digest = hashlib.sha256()
        payload = wire.fields(expected, b"%o" % (entry.mode & 0o777), entry.mtime, path)
        then = partial(self._sent, path, node, entry, reading=reading, digest=digest.digest)
        self._remote.request(wire.PUT, payload, then)
        try:
            for piece in reading.chunks():
                digest.update(piece)
                self._count(len(piece))
                self._remote.more(wire.DATA, piece)
        except (OSError, ChangedError) as error:
            self._remote.more(wire.ABORT)
            self._problem(path, error)
        else:
            self._remote.more(wire.COMMIT)

    def _sent(
        self,
        path: str,
        node: Node,
        entry: Entry,
        result: Result | Exception,
        *,
        reading: Reading | None = None,
        digest: Callable[[], bytes] = bytes,
    ) -> None:
        if not self._succeeded(path, result):
            return
        assert isinstance(result, Result)
        new = _like(entry, result.entry)
        sure = reading is not None and reading.settled
        kept = new.mtime == entry.mtime and new.size == entry.size
        self._alike(node, entry, new, digest(), [entry.mark if sure else None, new.mark if kept else None])
        self.outcome.sent.append(path)

    def _receive(self, path: str) -> None:
        """Bring what the shed has here."""
        node = self._node(path)
        entry, old = node.now[THERE], node.now[HERE]
        assert entry is not None
        if self._in_the_way(path, entry, old):
            return
        try:
            if entry.kind == FOLDER:
                if old is None:
                    self._here.make(path)
                    self._received(path, node, entry)
            elif entry.kind == LINK:
                self._here.link(path, entry.link, entry.mtime, old)
                self._received(path, node, entry)
            else:
                self._receive_file(path, node, entry, old)
        except (OSError, ChangedError) as error:
            self._problem(path, error)

    def _received(self, path: str, node: Node, entry: Entry) -> None:
        new = self._here.entry(path)
        if new is None or new.kind != entry.kind or new.link != entry.link:
            raise ChangedError
        self._alike(node, new, entry, b"", [None, None])
        self.outcome.received.append(path)

    def _receive_file(self, path: str, node: Node, entry: Entry, old: Entry | None) -> None:
        space = os.statvfs(self._here.path)
        due = sum(-(-arrival.left // space.f_frsize) for arrival in self._arriving)
        if (space.f_bavail - due) * space.f_frsize < entry.size + _FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        incoming = self._here.receive(path, self._mode(entry, old), entry.mtime, old)
        arrival = _Arrival(incoming, entry)
        self._arriving.add(arrival)

        def then(result: Result | Exception) -> None:
            if isinstance(result, Result) and (not arrival.complete or not entry.same(result.entry)):
                raise CopyError("the shed does not say what it has there")
            self._arriving.discard(arrival)
            if not self._succeeded(path, result):
                arrival.incoming.abort()
                return
            assert isinstance(result, Result)
            try:
                self._arrived(path, node, entry, arrival, settled=result.settled)
            except (OSError, ChangedError) as error:
                self._problem(path, error)

        def hear(data: bytes) -> None:
            self._count(len(data))
            arrival.write(data)

        self._remote.request(wire.GET, wire.fields(entry.encode(), path), then, hear=hear)

    def _arrived(self, path: str, node: Node, entry: Entry, arrival: _Arrival, *, settled: bool) -> None:
        if arrival.problem is not None:
            arrival.incoming.abort()
            raise arrival.problem
        content = arrival.digest.digest()
        old = node.now[HERE]
        marks: list[Mark | None] = [None, entry.mark if settled else None]
        if old is not None and node.ids[HERE] == identity_of(entry, content):  # only its time has changed
            arrival.incoming.abort()
            self._alike(node, old, entry, content, [node.sure[HERE], marks[THERE]])
            return
        new = arrival.incoming.commit()
        if new.mtime == entry.mtime and new.size == entry.size:
            marks[HERE] = new.mark
        self._alike(node, new, entry, content, marks)
        self.outcome.received.append(path)

    @staticmethod
    def _alike(node: Node, here: Entry, there: Entry, content: bytes, marks: list[Mark | None]) -> None:
        node.now = [here, there]
        node.ids = [identity_of(here, content)] * 2
        node.sure = marks
        node.agree()

    def _mode(self, entry: Entry, old: Entry | None) -> int:
        """Return the permissions that a file of the shed gets here: those of the one before, but for running it."""
        mode = old.mode & 0o777 if old is not None and old.kind == FILE else 0o666 & ~self._umask
        return mode | (mode & 0o444) >> 2 if is_executable(entry) else mode & ~0o111

    def _count(self, size: int) -> None:
        self.outcome.bytes += size
        self._on_bytes(self.outcome.bytes)


class _Arrival:
    """A file that comes from the shed: no more than it said, whatever comes."""

    def __init__(self, incoming: Incoming, entry: Entry) -> None:
        self.incoming = incoming
        self.digest = hashlib.sha256()
        self.problem: OSError | None = None
        self.left = entry.size
        """Bytes that are still to come."""

    @property
    def complete(self) -> bool:
        """Whether all of it has come."""
        return self.left == 0

    def write(self, data: bytes) -> None:
        """Take a piece."""
        self.left -= len(data)
        if self.left < 0:
            raise CopyError("the shed sends more of a file than it has said")
        self.digest.update(data)
        if self.problem is None:
            try:
                self.incoming.write(data)
            except OSError as error:
                self.problem = error


def _like(entry: Entry, said: Entry | None) -> Entry:
    """Return what the shed has in place of `entry`, by what it says."""
    if said is None or said.kind != entry.kind:
        return Entry(entry.kind, entry.mode, 0, 0, 0, 0, entry.link)
    said.link = entry.link
    said.mode = entry.mode
    return said


def _umask() -> int:
    from shed.fsutil import public_mode  # noqa: PLC0415

    return 0o666 & ~stat.S_IMODE(public_mode())
