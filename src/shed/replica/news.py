"""Being told what changes below a folder.  Source: inotify(7)."""

from __future__ import annotations

import os
import struct
import time

from shed.replica.entry import FOLDER, checked, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.replica.folder import Folder

_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_ALL = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_Q_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x40000000
_ONLYDIR = 0x01000000
_EVENT = struct.Struct("=iIII")
_READ = 256 * 1024
_SOON, _LATER, _MUCH_LATER = 0.005, 0.05, 0.5
"""Seconds until a change is told: of a file that was closed, one that was made, one that is being written."""
_MOST = 5_000
"""Changes that are told one by one."""


class News:
    """Changes below `folder`, from the moment it is made.  `fd` can be read when there are some."""

    def __init__(self, folder: Folder) -> None:
        """Raises `OSError`: ENOSPC for too many folders."""
        self._folder = folder
        self._paths: dict[int, str] = {}
        self._due: dict[str, float] = {}
        self._lost = False
        self.fd = checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            self._watch("")
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        """End it."""
        os.close(self.fd)

    def wait(self) -> float | None:
        """Return for how many seconds there is nothing to `take`; None for until `fd` can be read."""
        if self._lost:
            return 0.0
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def take(self) -> list[str] | None:
        """Return the paths at which something has changed; None when only all of it tells.  Raises `OSError`."""
        self._read()
        if self._lost or len(self._due) > _MOST:
            self._lost = False
            self._due.clear()
            self._watch("")
            return None
        now = time.monotonic()
        found = [path for path, due in self._due.items() if due <= now]
        for path in found:
            del self._due[path]
        return found

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.fd, _READ)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                self._hear(number, mask, os.fsdecode(data[at - length : at].rstrip(b"\0")))

    def _hear(self, number: int, mask: int, name: str) -> None:
        if mask & _IGNORED:
            self._paths.pop(number, None)
        folder = self._paths.get(number)
        if mask & _Q_OVERFLOW or (folder == "" and mask & (_DELETE_SELF | _MOVE_SELF)):
            self._lost = True
        if folder is None or not name:
            return
        path = f"{folder}/{name}" if folder else name
        if self._folder.skips(path):
            return
        if mask & _ISDIR and mask & _MOVED_FROM:
            self._forget(path)
        if mask & _ISDIR and mask & (_CREATE | _MOVED_TO | _ATTRIB):
            self._watch(path)
        delay = _SOON
        if mask & (_CREATE | _MODIFY) and not mask & _ISDIR:
            delay = _MUCH_LATER if mask & _MODIFY else _LATER
        self._due[path] = min(self._due.get(path, float("inf")), time.monotonic() + delay)

    def _watch(self, top: str) -> None:
        """Watch the folder at `top`, and all below it."""
        try:
            self._add(top)
            for path, entry in self._folder.look(top):
                if entry.kind == FOLDER:
                    self._add(path)
        except (FileNotFoundError, NotADirectoryError):
            if not top:
                raise

    def _add(self, path: str) -> None:
        try:
            place = f"/proc/self/fd/{self._folder.enter(path)}".encode()
            number = checked(libc.inotify_add_watch(self.fd, place, _ALL | _ONLYDIR))
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # what cannot be read is not carried either
            if not path:
                raise
            return
        self._paths[number] = path

    def _forget(self, top: str) -> None:
        for number, path in list(self._paths.items()):
            if path == top or path.startswith(f"{top}/"):
                libc.inotify_rm_watch(self.fd, number)
                del self._paths[number]
