"""System calls for which the standard library has no function, as functions that raise `OSError`.

Numbers are those of x86-64.  Sources: mount(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2),
capset(2), seccomp(2), landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import struct

NEWTIME, NEWNS, NEWCGROUP, NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
NEWIPC, NEWUSER, NEWPID, NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 2, 4, 8, 0x4000, 0x80000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""Attributes of a mount."""
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_PIVOT_ROOT, _OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 155, 428, 429, 442
_CAPSET, _CAPABILITY_VERSION = 126, 0x20080522
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_PTRACER = 24, 38, 0x59616D61
_MOST_CAPABILITIES = 64
_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EINVAL = 22

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
    return result


def _call(what: str, number: int, *arguments: object) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words), what)


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _check(_libc.unshare(flags), "unshare")


def mount_private() -> None:
    """Have nothing that is mounted from now on be seen outside this mount namespace."""
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount /")


def mount(kind: str, target: str, options: str) -> None:
    """Mount a new file system of `kind` at `target`, without devices, set-id bits or programs."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    done = _libc.mount(kind.encode(), os.fsencode(target), kind.encode(), flags, options.encode())
    _check(done, f"mount {kind}")


def open_tree(path: str, folder: int = _AT_FDCWD) -> int:
    """Return a descriptor of a copy of the mounts at `path` and below, which is attached nowhere.

    With no `path`, those at the open `folder`.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE | (0 if path else _AT_EMPTY_PATH)
    return _call(path, _OPEN_TREE, folder, os.fsencode(path), flags)


def attach(tree: int, target: str) -> None:
    """Mount what `open_tree` has returned at `target`."""
    _call(target, _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def move(source: str, target: str) -> None:
    """Move the mount at `source` to `target`."""
    _call(source, _MOVE_MOUNT, _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), 0)


def unmount(target: str) -> None:
    """Unmount what is at `target`, if nobody has anything open there; else the error is EBUSY."""
    _check(_libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW), target)


def enter(namespace: int, kind: int) -> None:
    """Enter a namespace that is open, of the `kind` of one of the flags above."""
    _check(_libc.setns(namespace, kind), "setns")


def writable_root() -> int:
    """Return a descriptor of a copy of the mount at ``/`` alone, which can be written though that cannot."""
    root = _call("/", _OPEN_TREE, _AT_FDCWD, b"/", _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    wanted = struct.pack("=QQQQ", 0, RDONLY, 0, 0)
    _call("mount_setattr", _MOUNT_SETATTR, root, b"", _AT_EMPTY_PATH, wanted, len(wanted))
    return root


def set_attributes(tree: int, attributes: int) -> None:
    """Give all mounts of the detached `tree` `attributes`; they keep those that they have."""
    _set(tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes)


def set_root_attributes(attributes: int) -> None:
    """Give the mount at ``/``, and none below it, `attributes`."""
    _set(_AT_FDCWD, b"/", 0, attributes)


def _set(folder: int, path: bytes, flags: int, attributes: int) -> None:
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _call("mount_setattr", _MOUNT_SETATTR, folder, path, flags, wanted, len(wanted))


def pivot_root() -> None:
    """Make the working directory, which is a mount, the root, and let go of all else that is mounted."""
    _call("pivot_root", _PIVOT_ROOT, b".", b".")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def drop_bounding_set() -> None:
    """Never get a capability by executing a program, whoever we are."""
    for capability in range(_MOST_CAPABILITIES):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            if ctypes.get_errno() == _EINVAL and capability:
                return
            _check(-1, "prctl")


def drop_capabilities() -> None:
    """Have no capability any more."""
    _call("capset", _CAPSET, struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))


def allow_tracer(pid: int) -> None:
    """Let the process `pid` look into this one where Yama is; elsewhere nothing has to be done."""
    _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def no_new_privileges() -> None:
    """Get no right by executing a program."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def hold(program: bytes, *, listen: bool = False) -> int:
    """Hold this process, and what it becomes, to a seccomp program; with `listen`, return the listener for it."""
    code = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    return _call("seccomp", _SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER if listen else 0, argument)


def landlock_version() -> int:
    """Return the version of Landlock that this kernel has; 0 when it has none."""
    try:
        return _call("landlock", _LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0


def landlock(handled: bytes, allowed: list[tuple[int, int]]) -> None:
    """Restrict this process by Landlock: `handled` is a struct landlock_ruleset_attr.

    `allowed` has descriptors of files and what may be done at and below each.
    """
    rules = _call("landlock", _LANDLOCK_CREATE, handled, len(handled), 0)
    for file, access in allowed:
        _call("landlock", _LANDLOCK_ADD, rules, 1, struct.pack("=Qi", access, file), 0)
    _call("landlock", _LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)
