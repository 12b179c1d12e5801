"""The seccomp program around a VMM: a list of what it may call.  Pure: builds bytes.

See `shed.linux.allowed`.  Not there: sockets of any kind but those that were inherited; new processes.

`execve` is listed, because the launcher becomes the VMM by it; QEMU's own filter then takes it away.

Source: arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

from shed.backends.guard.filter import SYSCALLS
from shed.linux import allowed, bpf

_CALLS = {**allowed.ORDINARY, "execve": 59, "listen": 50, "seccomp": 317}
_SHARES = {
    "chmod": 90, "fchmod": 91, "fchown": 93, "lchown": 94, "lsetxattr": 189, "fsetxattr": 190, "lgetxattr": 192,
    "fgetxattr": 193, "llistxattr": 195, "flistxattr": 196, "lremovexattr": 198, "fremovexattr": 199, "mkdirat": 258,
    "mknodat": 259, "fchownat": 260, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
    "fchmodat": 268, "utimensat": 280, "syncfs": 306, "renameat2": 316,
}  # fmt: skip
"""What the 9P server needs beside these."""
_O_RDWR = 2


def program(*, shares: bool) -> bytes:
    """Return the instructions (struct sock_filter each); `shares` for a VMM that serves folders."""
    return allowed.program({**_CALLS, **(_SHARES if shares else {})})


def asking_for_memory(then: bytes) -> bytes:
    """Return a program that asks about the call by which QEMU opens its memory, and for others is `then`.

    It opens nothing else to be read and written without a further flag.
    """
    ask = [*bpf.argument(2), *bpf.when(bpf.JEQ, _O_RDWR, then=[bpf.ret(bpf.NOTIFY)])]
    code = [*bpf.load_number(), *bpf.when(bpf.JEQ, SYSCALLS["openat"], then=ask)]
    return b"".join([*code, then])
