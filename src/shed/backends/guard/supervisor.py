"""The supervisor: answers what the kernel asks about the calls of one QEMU.

The names are in QEMU's memory, where the guest cannot change them; the folders are the descriptors that QEMU holds,
which the 9P server has reached step by step, without following links.  So what is looked at is what the call will use.

Run by ``python guard`` with a socket to the launcher as descriptor 3, see `handover`.  One call is answered at a time.
A call that cannot be understood is refused.  It ends with QEMU.

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import select
import stat
import struct
import sys
from pathlib import Path

from shed.backends.guard import asking, revoking, rules, settings
from shed.backends.guard import filter as calls
from shed.backends.guard.rules import Verdict

_NAME_BYTES = 256
_LINK = b"/proc/self/fd/"
"""How the 9P server names what it has opened, to change its mode."""
_INSENSITIVE = 0x40000000
_GET_FLAGS = 0x80086601
"""FS_CASEFOLD_FL, FS_IOC_GETFLAGS of <linux/fs.h>."""
_SENSITIVE = frozenset(
    {b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"f2fs", b"tmpfs", b"overlay", b"zfs", b"nfs", b"nfs4", b"bcachefs"}
)
"""File systems where upper and lower case differ, unless the folder says otherwise."""
_MOST_MOVED = 100_000
"""Entries of a folder in which submodules are looked for when it is moved."""
_AT_REMOVEDIR = 0x200
_FOLDERS = {"symlinkat": (1,), "linkat": (0, 2), "renameat": (0, 2), "renameat2": (0, 2)}
"""Which arguments are folders, where it is not the first alone."""
_NAMES = {number: name for name, number in calls.SYSCALLS.items()}


class _Folder:
    """What stands behind a descriptor of QEMU's; see `rules.Folder`."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self.way = f"/proc/{pid}/fd/{descriptor}"
        self.path = os.readlink(os.fsencode(self.way)).removeprefix(calls.SHARES)  # noqa: PTH115  bytes

    def holds(self, name: bytes, up: int = 0) -> bool:
        if os.path.lexists(self._of(b"../" * up + name)):
            return True
        above = self.path.split(b"/")[:-up] if up else []  # in QEMU's jail nothing is above what it serves
        return bool(above) and os.path.lexists(b"/".join([*above, name]))

    def _of(self, name: bytes) -> bytes:
        return os.fsencode(self.way) + b"/" + name

    def is_folder(self, name: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(self._of(name)).st_mode)
        except FileNotFoundError:
            return False

    def has_submodules(self, name: bytes) -> bool:
        if not self.is_folder(name) or not any(self.holds(b".git/modules", up) for up in range(self.path.count(b"/"))):
            return False
        left = _MOST_MOVED
        for _, folders, files in os.walk(self._of(name)):
            left -= len(folders) + len(files)
            if b".git" in files or left < 0:
                return True
        return False

    def insensitive(self) -> bool:
        descriptor = os.open(self.way, os.O_RDONLY | os.O_DIRECTORY)
        try:
            kind = _file_system(descriptor, self._pid)
            if kind not in _SENSITIVE:
                return True
            if kind not in {b"ext4", b"f2fs"}:
                return False
            return bool(struct.unpack("=I", fcntl.ioctl(descriptor, _GET_FLAGS, b"\0" * 4))[0] & _INSENSITIVE)
        except OSError:
            return True
        finally:
            os.close(descriptor)


class Supervisor:
    """Answers for QEMU, process `pid`."""

    def __init__(self, listener: int, pid: int) -> None:
        self._listener = listener
        self._pid = pid
        self._memory = -1
        self._locks = settings.Locks()
        self._revoking = revoking.Revoking(listener, pid)

    def serve(self) -> None:
        """Answer one call after the other, until nobody is left who could ask."""
        while (question := asking.receive(self._listener)) is not None:
            call = _NAMES.get(question.number, "")
            try:
                problem = self._answer(question.identity, call, question.arguments)
            except OSError as error:
                problem = error.errno or errno.EPERM
            except Exception as error:  # noqa: BLE001  whatever it is, the call is refused, and the next one answered
                sys.stderr.write(f"guard: {call or question.number}: {error!r}\n")
                problem = errno.EPERM
            asking.answer(
                self._listener,
                question.identity,
                value=max(0, -(problem or 0)),
                error=max(0, problem or 0),
                go_on=problem is None,
            )

    def _answer(self, identity: int, call: str, arguments: list[int]) -> int | None:
        """Decide on a call: None when it may go on, or an error number.

        When the call was done here, return what it returned, which is less than 1.
        """
        if call == "chmod":
            return self._keep_setgid(self._text(arguments[0]), arguments[1] & 0o7777)
        if call == "openat" and arguments[0] & 0xFFFFFFFF == calls.AT_FDCWD:
            mount = self._text(arguments[1]).removeprefix(revoking.PLACE)
            if mount.isdigit():
                self._revoking.revoke(identity, int(mount))
            return errno.EPERM
        if all(self._is_free(arguments[place]) for place in _FOLDERS.get(call, (0,))):
            return None
        verdict, folder, name = self._judge(call, arguments)
        if verdict is Verdict.ALLOW:
            return None
        asking.check(self._listener, identity)  # what was read was this call's
        if verdict is Verdict.SETTINGS:
            self._locks.replace(folder.way, self._name(arguments[1]), name, self._user())
            return 0
        if verdict is Verdict.UNLOCK:
            self._locks.remove(folder.way, name)
            return 0
        if verdict is Verdict.UNSET:
            settings.remove(folder.way, name)
            return 0
        if verdict is Verdict.LOCK and call == "openat":
            return self._give(
                identity,
                self._locks.make(
                    folder.way, name, arguments[2], arguments[3] & 0o777 & ~self._number("Umask:", 1, 8), self._user()
                ),
            )
        if verdict is Verdict.COMMON and call == "openat":
            return self._give(identity, settings.make_common(folder.way, self._user()))
        return errno.EPERM

    def _give(self, identity: int, descriptor: int) -> int:
        """Give QEMU a descriptor of ours; return its number there, negative, as the call's answer."""
        try:
            return -asking.give(self._listener, identity, descriptor)
        finally:
            os.close(descriptor)

    def _judge(self, call: str, arguments: list[int]) -> tuple[Verdict, _Folder, bytes]:
        """Return what is done with a call, and the folder and the name that it makes or changes."""
        first, second, third, fourth, fifth, _ = arguments
        if call == "symlinkat":
            folder, name = self._folder(second), self._name(third)
            return rules.make_link(folder, name, self._bytes(first).partition(b"\0")[0]), folder, name
        folder, name = self._folder(first), self._name(second)
        if call == "openat":
            creates, exclusive = bool(third & calls.CREATES), bool(third & os.O_EXCL)
            return rules.write(folder, name, creates=creates, exclusive=exclusive), folder, name
        if call == "unlinkat":
            return Verdict.ALLOW if third & _AT_REMOVEDIR else rules.remove(folder, name), folder, name
        if call == "mknodat":
            return rules.write(folder, name, creates=True), folder, name
        if call == "mkdirat":
            return rules.make_folder(folder, name), folder, name
        target, new = self._folder(third), self._name(fourth)
        if call == "linkat" and not fifth & 0xFFFFFFFF:
            return rules.link(folder, name, target, new), target, new
        if call == "renameat" or (call == "renameat2" and not fifth & 0xFFFFFFFF):
            return rules.rename(folder, name, target, new), target, new
        return Verdict.DENY, target, new

    def _keep_setgid(self, path: bytes, mode: int) -> int:
        """Change the mode of a folder that has its setgid already, from the one above it or from the host.

        Nothing else gets one.
        """
        number = path.removeprefix(_LINK)
        if number == path or not number.isdigit():
            return errno.EPERM
        descriptor = os.open(f"/proc/{self._pid}/fd/{int(number)}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            status = os.fstat(descriptor)
            if not status.st_mode & stat.S_ISGID or self._user()[0] not in {0, status.st_uid}:
                return errno.EPERM
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        return 0

    def _is_free(self, descriptor: int) -> bool:
        return self._folder(descriptor).path.startswith(calls.FREE + b"/")

    def _folder(self, descriptor: int) -> _Folder:
        return _Folder(self._pid, descriptor & 0xFFFFFFFF)

    def _name(self, address: int) -> bytes:
        name = self._text(address)
        if b"/" in name:
            raise OSError(errno.EPERM, "a path")
        return name

    def _text(self, address: int) -> bytes:
        text, end, _ = self._bytes(address).partition(b"\0")
        if not end:
            raise OSError(errno.ENAMETOOLONG, "no end")
        return text

    def _bytes(self, address: int) -> bytes:
        """Return what is in QEMU's memory, a name's length of it."""
        if self._memory < 0:  # QEMU's, which was not there yet when we were started
            self._memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY)
        return os.pread(self._memory, _NAME_BYTES, address)

    def _user(self) -> tuple[int, int]:
        """Return the user and group as which QEMU makes files, in our numbers."""
        return self._number("Uid:", 4), self._number("Gid:", 4)

    def _number(self, name: str, word: int, base: int = 10) -> int:
        """Return a number from what the kernel says of QEMU; see proc_pid_status(5)."""
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(words[word], base) for words in map(str.split, lines) if words[0] == name)


def _file_system(descriptor: int, pid: int) -> bytes:
    """Return the type of the file system that a folder of QEMU's, process `pid`, is in; empty when it is not known."""
    words = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().split()
    mount = words[words.index(b"mnt_id:") + 1]
    for line in Path(f"/proc/{pid}/mountinfo").read_bytes().splitlines():
        words = line.split()
        if words[0] == mount:
            return words[words.index(b"-") + 1]
    return b""


def run(listener: int, pid: int) -> None:
    """Serve until QEMU ends."""
    ended = select.poll()
    ended.register(os.pidfd_open(pid), select.POLLIN)

    def end() -> None:
        ended.poll()
        os._exit(0)

    _thread.start_new_thread(end, ())
    Supervisor(listener, pid).serve()
