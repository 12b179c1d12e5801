"""A process in QEMU's place, in its jail, that tries what it is told: what whoever has taken over QEMU could try."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from shed.backends.guard import mode
from shed.backends.jail.plan import Folder, Jail
from shed.backends.qemu import command, launching, process
from support.vms import processes

UUID = "1d0f3a41-59a5-4c0e-8d2a-3b8d6a1c7e55"
PROGRAM = f"""
import ctypes, errno, mmap, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
memory = libc.open(b"/memory", os.O_RDWR) if WITH_MEMORY else None
port, _ = socket.socket(fileno={command.AGENT_FD}).accept()
while line := port.recv(65536):
    try:
        answer = repr(eval(line.decode()))
    except OSError as error:
        answer = errno.errorcode.get(error.errno, str(error))
    except Exception as error:
        answer = repr(error)
    port.send(answer.encode()[:60000])
"""
PYTHON = Path("/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable).resolve()
"""One that everybody may execute: ours may be in somebody's home."""


class Prisoner:
    """A process in a jail as QEMU's is, with the folders `shares`, which opens its memory if the file is given.

    With `more` it has a guard, too, and can get further folders.
    """

    def __init__(
        self,
        folder: Path,
        *shares: Folder,
        user: tuple[int, int, int, int] | None = None,
        memory: int | None = None,
        more: bool = False,
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        jail = Jail(PYTHON, folders=shares, devices=(Path(os.devnull),), user=user, more=more)
        guard = mode.plan([], more=True) if more else mode.OPEN
        program = f"WITH_MEMORY = {memory is not None}\n{PROGRAM}"
        argv = [str(PYTHON), "-I", "-S", "-c", program, UUID]
        host = command.Host(PYTHON, "tcg", UUID)
        self.record = launching.launch(folder, argv, host, "demo", jail, memory=memory, guard=guard)
        self._port = socket.socket(socket.AF_UNIX)
        self._port.settimeout(60)
        with process.reachable(folder, process.AGENT_SOCKET) as path:
            self._port.connect(path)

    def __enter__(self) -> Prisoner:
        return self

    def __exit__(self, *_: object) -> None:
        self._port.close()
        processes.end(self.record)

    def tries(self, what: str) -> str:
        """Return the value of an expression there, or the name of the error that it ends with."""
        self._port.sendall(what.encode())
        return self._port.recv(65536).decode()
