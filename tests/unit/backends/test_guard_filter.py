"""The seccomp program: what it answers, by an interpreter of BPF; and a real process that is held to it."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from shed.backends.guard.filter import SYSCALLS, program
from shed.linux.bpf import ALLOW, ARCH_X86_64, ERRNO, KILL, NOTIFY

AT_FDCWD = -100
FOLDER = 7
REFUSED, MISSING = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS


def answer(code: bytes, number: int, *arguments: int, arch: int = ARCH_X86_64) -> int:
    """Return what the kernel would do with a call; the instructions are those of linux/filter.h that seccomp knows and
    we use.
    """
    words = [value & (1 << 64) - 1 for value in arguments] + [0] * (6 - len(arguments))
    data = struct.pack("=iIQ6Q", number, arch, 0, *words)
    instructions = list(struct.iter_unpack("=HBBI", code))
    place, register = 0, 0
    while True:
        operation, then, otherwise, value = instructions[place]
        place += 1
        match operation:
            case 0x20:
                register = int(struct.unpack_from("=I", data, value)[0])
            case 0x54:
                register &= value
            case 0x15:
                place += then if register == value else otherwise
            case 0x25:
                place += then if register > value else otherwise
            case 0x45:
                place += then if register & value else otherwise
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(operation)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("bits", [0o4000, 0o2000, 0o6000, 0o7777])
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("fchmod", (3,)),
        ("fchmodat", (FOLDER, 0)),
        ("creat", (0,)),
        ("mknod", (0,)),
        ("mknodat", (FOLDER, 0)),
        ("open", (0, os.O_CREAT | os.O_WRONLY)),
        ("openat", (FOLDER, 0, os.O_CREAT | os.O_RDWR)),
        ("openat", (AT_FDCWD, 0, os.O_TMPFILE | os.O_RDWR)),
    ],
)
def test_no_call_gives_set_id_bits(guarded: bool, bits: int, call: str, arguments: tuple[int, ...]) -> None:
    """By whatever call, with or without a supervisor; what stands above the 32 bits that the kernel takes changes
    nothing.
    """
    for above in (0, 1 << 40):
        assert answer(program(supervised=guarded, names=guarded), SYSCALLS[call], *arguments, bits | above) == REFUSED


def test_a_mode_is_changed_without_set_id_bits() -> None:
    """A plain mode goes on; a folder's setgid may be asked about, where there is somebody to ask."""
    for guarded in (True, False):
        assert answer(program(supervised=guarded, names=guarded), SYSCALLS["chmod"], 0, 0o1777) == ALLOW
        assert answer(program(supervised=guarded, names=guarded), SYSCALLS["chmod"], 0, 0o4755) == REFUSED
        assert answer(program(supervised=guarded, names=guarded), SYSCALLS["chmod"], 0, 0o6755) == REFUSED
    assert answer(program(supervised=True, names=True), SYSCALLS["chmod"], 0, 0o2755) == NOTIFY
    assert answer(program(supervised=False, names=False), SYSCALLS["chmod"], 0, 0o2755) == REFUSED


@pytest.mark.parametrize("kind", [0o020666, 0o060666])
def test_no_device_is_made(kind: int) -> None:
    """Neither kind; plain files, fifos and sockets are."""
    assert answer(program(supervised=False, names=False), SYSCALLS["mknodat"], FOLDER, 0, kind) == REFUSED
    for other in (0o644, 0o100644, 0o010644, 0o140644):
        assert answer(program(supervised=False, names=False), SYSCALLS["mknodat"], FOLDER, 0, other) == ALLOW
        assert answer(program(supervised=True, names=True), SYSCALLS["mknodat"], FOLDER, 0, other) == NOTIFY


def test_what_changes_names_is_asked_about() -> None:
    """Calls with a folder's descriptor, when they write; QEMU's own, unless they make a file, and what only reads, go
    their way.
    """
    code = program(supervised=True, names=True)
    for call in ("renameat", "renameat2", "linkat", "mkdirat"):
        assert answer(code, SYSCALLS[call], FOLDER, 0, FOLDER, 0) == NOTIFY
    assert answer(code, SYSCALLS["symlinkat"], 0, FOLDER, 0) == NOTIFY
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_CREAT):
        assert answer(code, SYSCALLS["openat"], FOLDER, 0, flags, 0o644) == NOTIFY
        own = NOTIFY if flags & os.O_CREAT else ALLOW
        assert answer(code, SYSCALLS["openat"], AT_FDCWD, 0, flags, 0o644) == own
    assert answer(code, SYSCALLS["openat"], FOLDER, 0, os.O_RDONLY | os.O_DIRECTORY | os.O_PATH, 0o7777) == ALLOW
    assert answer(code, SYSCALLS["unlinkat"], FOLDER, 0, 0) == NOTIFY
    assert answer(program(supervised=True, names=False), SYSCALLS["renameat"], FOLDER, 0, FOLDER, 0) == ALLOW
    for number in (0, 1, 3, 16, 202, 262):
        assert answer(code, number, FOLDER) == ALLOW


def test_there_is_no_way_around() -> None:
    """Other architectures' calls end the process; those of x32, rings, and calls that came later do not exist."""
    code = program(supervised=True, names=True)
    assert answer(code, 5, arch=0x40000003) == KILL
    for number in (SYSCALLS["io_uring_setup"], SYSCALLS["openat2"], SYSCALLS["fchmodat2"], 463, 1000, 0x40000000 | 90):
        assert answer(code, number, 0, 0o4755) == MISSING


def test_the_kernel_takes_it(tmp_path: Path) -> None:
    """A real process under the program: what is refused, is."""
    script = f"""
import os
from shed.linux import kernel
kernel.no_new_privileges()
kernel.hold({program(supervised=False, names=False)!r})
def attempt(call):
    try:
        call()
        return "works"
    except OSError as error:
        return error.strerror
os.umask(0)
print(attempt(lambda: os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755)))
print(attempt(lambda: os.mknod("null", 0o20666, os.makedev(1, 3))))
print(attempt(lambda: os.open("plain", os.O_CREAT | os.O_WRONLY, 0o644)))
print(attempt(lambda: os.chmod("plain", 0o6755)))
print(attempt(lambda: os.chmod("plain", 0o755)))
os.mkdir("folder", 0o6755)
print(oct(os.stat("folder").st_mode & 0o6000))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    refused = "Operation not permitted"
    assert done.stdout.splitlines() == [refused, refused, "works", refused, "works", "0o0"], done.stderr
