"""The supervisor: answers what the kernel asks about the calls of one QEMU.

The names are in QEMU's memory, where the guest cannot change them; the folders are the descriptors that QEMU holds, which the 9P server has
reached step by step, without following links.  So what is looked at is what the call will use.

Run by ``python guard PID MODE`` with a socket to the launcher as descriptor 3, over which the kernel's listener comes.  One call is
answered at a time.  A call that cannot be understood is refused.  It ends with QEMU.

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import _socket
import _thread
import errno
import fcntl
import os
import select
import stat
import struct
import sys
from pathlib import Path

from shed.backends.qemu.guard import filter as calls
from shed.backends.qemu.guard import rules, settings
from shed.backends.qemu.guard.rules import Verdict

LAUNCHER = 3
READY = b"R"
NO_RULES = "git-rw"
"""Instead of ``rw``: only set-id bits are watched."""
_RECEIVE, _SEND, _STILL = 0xC0502100, 0xC0182101, 0x40082102
_QUESTION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=Qqii")
_GO_ON = 1
"""SECCOMP_USER_NOTIF_FLAG_CONTINUE."""
_NAME_BYTES = 256
_LINK = b"/proc/self/fd/"
"""How the 9P server names what it has opened, to change its mode."""
_INSENSITIVE = 0x40000000
_GET_FLAGS = 0x80086601
"""FS_CASEFOLD_FL, FS_IOC_GETFLAGS of <linux/fs.h>."""
_SENSITIVE = frozenset({b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"f2fs", b"tmpfs", b"overlay", b"zfs", b"nfs", b"nfs4", b"bcachefs"})
"""File systems where upper and lower case differ, unless the folder says otherwise."""
_NAMES = {number: name for name, number in calls.SYSCALLS.items()}


class _Folder:
    """What stands behind a descriptor of QEMU's; see `rules.Folder`."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.way = f"/proc/{pid}/fd/{descriptor}"
        self.path = os.readlink(os.fsencode(self.way))  # noqa: PTH115  bytes

    def holds(self, name: bytes, up: int = 0) -> bool:
        return os.path.lexists(os.fsencode(f"{self.way}/{'../' * up}") + name)

    def insensitive(self) -> bool:
        descriptor = os.open(self.way, os.O_RDONLY | os.O_DIRECTORY)
        try:
            kind = _file_system(descriptor)
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
    """Answers for QEMU, process `pid`; without `guarded`, git's names are anybody's."""

    def __init__(self, listener: int, pid: int, *, guarded: bool) -> None:
        self._listener = listener
        self._pid = pid
        self._guarded = guarded
        self._memory = -1

    def serve(self) -> None:
        """Answer one call after the other."""
        while True:
            question = bytearray(_QUESTION.size)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, question)
            except (InterruptedError, FileNotFoundError):
                continue  # the call was given up in the meantime
            identity, _, _, number, _, _, *arguments = _QUESTION.unpack(question)
            try:
                problem = self._answer(identity, _NAMES.get(number, ""), arguments)
            except OSError as error:
                problem = error.errno or errno.EPERM
            except Exception as error:  # noqa: BLE001  whatever it is, the call is refused, and the next one answered
                sys.stderr.write(f"guard: {_NAMES.get(number, number)}: {error!r}\n")
                problem = errno.EPERM
            go_on = _GO_ON if problem is None else 0
            try:
                fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(identity, 0, -(problem or 0), go_on))
            except FileNotFoundError:
                continue

    def _answer(self, identity: int, call: str, arguments: list[int]) -> int | None:
        """Return None when the call may go on, 0 when it was done here, or an error number."""
        if call == "chmod":
            return self._keep_setgid(self._text(arguments[0]), arguments[1] & 0o7777)
        if not self._guarded:
            return None
        verdict, folder, name = self._judge(call, arguments)
        fcntl.ioctl(self._listener, _STILL, struct.pack("=Q", identity))  # what was read was this call's
        if verdict is Verdict.SETTINGS and folder is not None:
            return settings.replace(folder.way, name, self._user())
        return None if verdict is Verdict.ALLOW else errno.EPERM

    def _judge(self, call: str, arguments: list[int]) -> tuple[Verdict, _Folder | None, bytes]:
        first, second, third, fourth, fifth, _ = arguments
        if call == "symlinkat":
            return rules.make_entry(self._folder(second), self._name(third)), None, b""
        folder, name = self._folder(first), self._name(second)
        if call == "openat":
            return rules.write(folder, name, creates=bool(third & calls.CREATES)), None, b""
        if call == "mknodat":
            return rules.write(folder, name, creates=True), None, b""
        if call == "mkdirat":
            return rules.make_folder(folder, name), None, b""
        target, new = self._folder(third), self._name(fourth)
        if call == "linkat" and not fifth & 0xFFFFFFFF:
            return rules.link(folder, name, target, new), None, b""
        if call == "renameat" or (call == "renameat2" and not fifth & 0xFFFFFFFF):
            return rules.rename(folder, name, target, new), folder, new
        return Verdict.DENY, None, b""

    def _keep_setgid(self, path: bytes, mode: int) -> int:
        """Change the mode of a folder that has its setgid already, from the one above it or from the host; nothing else gets one."""
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

    def _folder(self, descriptor: int) -> _Folder:
        return _Folder(self._pid, descriptor & 0xFFFFFFFF)

    def _name(self, address: int) -> bytes:
        name = self._text(address)
        if b"/" in name:
            raise OSError(errno.EPERM, "a path")
        return name

    def _text(self, address: int) -> bytes:
        if self._memory < 0:  # QEMU's, which was not there yet when we were started
            self._memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY)
        text, end, _ = os.pread(self._memory, _NAME_BYTES, address).partition(b"\0")
        if not end:
            raise OSError(errno.ENAMETOOLONG, "no end")
        return text

    def _user(self) -> tuple[int, int]:
        """Return the user and group as which QEMU makes files, in our numbers."""
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        found = {words[0]: int(words[4]) for words in map(str.split, lines) if words[0] in {"Uid:", "Gid:"}}
        return found["Uid:"], found["Gid:"]


def _file_system(descriptor: int) -> bytes:
    """Return the type of the file system that an open folder is in; empty when it is not known."""
    words = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().split()
    mount = words[words.index(b"mnt_id:") + 1]
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        words = line.split()
        if words[0] == mount:
            return words[words.index(b"-") + 1]
    return b""


def run(pid: int, mode: str) -> None:
    """Take the listener, say that we are there, and serve until QEMU ends."""
    ended = select.poll()
    ended.register(os.pidfd_open(pid), select.POLLIN)

    def end() -> None:
        ended.poll()
        os._exit(0)

    _thread.start_new_thread(end, ())
    launcher = _socket.socket(fileno=LAUNCHER)
    _, messages, _, _ = launcher.recvmsg(1, _socket.CMSG_SPACE(4))
    if not messages:
        return  # the launcher has given up
    (listener,) = struct.unpack("=i", messages[0][2][:4])
    launcher.sendall(READY)
    launcher.close()
    Supervisor(listener, pid, guarded=mode != NO_RULES).serve()
