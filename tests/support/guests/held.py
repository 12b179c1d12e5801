"""A process in QEMU's place, held to a guard: does in a shared folder what it is told, as a guest would by 9P."""

from __future__ import annotations

import os
import select
import socket
import sys
from pathlib import Path

from shed.backends.base import Share
from shed.backends.guard import mode
from shed.backends.jail.plan import Folder, Jail, inside
from shed.backends.qemu import command, launching, process, userns
from support.vms import processes

UUID = "7b1d9d9e-1c3f-4d69-9d5a-0a3b4f4e9f10"
PROGRAM = f"""
import os, socket
port, _ = socket.socket(fileno={command.AGENT_FD}).accept()
shared = os.open({{share!r}}, os.O_PATH | os.O_DIRECTORY)
os.umask(0o022)
lock = os.O_CREAT | os.O_EXCL | os.O_RDWR
def at(path):
    return os.open(path, os.O_PATH | os.O_DIRECTORY, dir_fd=shared)
def write(folder, name, text=b"", mode=0o644, how=os.O_CREAT | os.O_WRONLY | os.O_TRUNC):
    file = os.open(name, how, mode, dir_fd=at(folder))
    os.write(file, text)
    return file
def move(folder, name, target, new):
    os.rename(name, new, src_dir_fd=at(folder), dst_dir_fd=at(target))
def make(folder, name):
    os.mkdir(name, 0o2755, dir_fd=at(folder))
def chmod(path, mode):
    os.chmod("/proc/self/fd/%d" % os.open(path, os.O_PATH, dir_fd=shared), mode)
while line := port.recv(65536):
    try:
        eval(line.decode())
        port.send(b"works")
    except OSError as error:
        port.send(error.strerror.encode())
"""
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
"""One that everybody may execute: ours may be in somebody's home."""
REFUSED = "Operation not permitted"


class Held:
    """A process in QEMU's place."""

    def __init__(self, folder: Path, how: str = "rw", *, beside: str = "") -> None:
        """Hold it in the folder `share`, and in another one `beside` in its own mode."""
        self.share, self.beside, self._state = folder / "share", folder / "beside", folder / "state"
        self.share.mkdir()
        self._state.mkdir()
        shares = [Share("workspace", self.share, 1000, 1000, how)]
        if beside:
            self.beside.mkdir()
            shares.append(Share("mount0", self.beside, 1000, 1000, beside))
        jail = Jail(
            Path(PYTHON).resolve(),
            folders=tuple(Folder(share.path, share.mode) for share in shares),
            user=userns.plan(shares, userns.check_folders(shares), uid=os.geteuid(), gid=os.getegid()),
        )
        argv = [str(jail.program), "-S", "-c", PROGRAM.format(share=inside(self.share, how)), UUID]
        host = command.Host(Path(sys.executable), "tcg", UUID)
        self.record = launching.launch(self._state, argv, host, "demo", jail, guard=mode.plan(shares))
        self._port = socket.socket(socket.AF_UNIX)
        self._port.settimeout(60)
        with process.reachable(self._state, process.AGENT_SOCKET) as path:
            self._port.connect(path)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        guards = [os.pidfd_open(pid) for pid in self.guards()]
        processes.end(self.record)
        self._port.close()
        for guard in guards:  # it ends with what it watches
            assert select.select([guard], [], [], 60)[0]
            os.close(guard)

    def guards(self) -> list[int]:
        return processes.guards(self.record)

    def does(self, what: str) -> str:
        self._port.sendall(what.encode())
        return self._port.recv(1000).decode()
