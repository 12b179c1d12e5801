"""The inside of a jail: namespaces, an empty root with what the VMM must open, and no right to anything else.

The process that becomes the VMM passes through `enter_first` (before it is forked, because a process id namespace holds
children alone), `enter` and `lock`.  For root's server it gets a user of its own: the number is made of its process id,
so no two VMs that run have the same, and no file ever belongs to one: what a VM writes to was opened before.  An
ordinary user's server has no other user to give; there it is a user namespace in which there is nobody else.

Everything else is lost on the way: what is mounted, processes, System V memory, the network, capabilities, and the way
to get any of it back.
"""

from __future__ import annotations

import errno
import os

from shed.linux import kernel, landlock, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from shed.backends.jail.plan import JailOrders, Numbers


def enter_first(jail: JailOrders) -> None:
    """Enter what has to be entered before the VMM's process is made."""
    if jail["own"] is None:
        kernel.unshare(kernel.NEWPID)
        return
    kernel.unshare(kernel.NEWUSER | kernel.NEWPID)
    write_maps("/proc/self", jail["own"], setgroups=False)


def write_maps(process: str, numbers: Numbers, *, setgroups: bool = True) -> None:
    """Give the user namespace of the process whose folder is `process` the only user and group that it has."""
    uid, gid, outer_uid, outer_gid = numbers
    if not setgroups:
        _write(f"{process}/setgroups", "deny")
    _write(f"{process}/gid_map", f"{gid} {outer_gid} 1")
    _write(f"{process}/uid_map", f"{uid} {outer_uid} 1")


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def enter(jail: JailOrders, folder: str, number: int, attendant: socket) -> None:
    """Leave the host behind, as process `number` there; ask `attendant` for what only somebody outside can do."""
    kernel.unshare(kernel.NEWNS | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWCGROUP)
    _furnish(jail, folder)
    if jail["own"] is not None:
        kernel.drop_bounding_set()
    else:
        if jail["groups"] is not None:
            os.setgroups(jail["groups"])
        if jail["given"] is None:
            uid = gid = jail["first_user"] + number
        else:
            kernel.unshare(kernel.NEWUSER)
            attendant.send(b"U")
            if attendant.recv(1) != b"M":
                raise OSError(1, "the user namespace has no users", "uid_map")
            uid, gid, _, _ = jail["given"]
        kernel.drop_bounding_set()
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    kernel.drop_capabilities()


def _furnish(jail: JailOrders, folder: str) -> None:
    """Make the new root: an empty file system with the mounts of `jail`."""
    kernel.mount_private()
    trees = [
        (target.lstrip("/"), os.path.isdir(source), kernel.open_tree(source), attributes)  # noqa: PTH112  few imports
        for source, target, attributes in jail["mounts"]
    ]
    trees += [
        (target.lstrip("/"), True, open_share(source, identity), attributes)
        for source, target, attributes, identity in jail["shares"]
    ]
    kernel.mount("tmpfs", folder, "mode=755,size=1m,nr_inodes=1k")
    os.chdir(folder)
    for target, is_folder, tree, attributes in trees:
        make(target, is_folder=is_folder)
        kernel.set_attributes(tree, attributes)
        kernel.attach(tree, target)
        os.close(tree)
    for target in jail["empty"]:
        make(target.lstrip("/"), is_folder=True)
    for target, text in jail["links"]:
        os.symlink(text, target.lstrip("/"))  # noqa: PTH211  as above
    if jail["proc"]:
        make("proc", is_folder=True)
        kernel.mount("proc", "proc", "subset=pid")
    kernel.pivot_root()
    kernel.set_root_attributes(kernel.RDONLY | kernel.NOSUID | kernel.NODEV | kernel.NOEXEC)


def open_share(source: str, identity: tuple[int, int] | None) -> int:
    """Return a copy of the mounts at the folder `source`.

    Others may write to what is above it: it is reached without links, and is the one that the server has looked at.
    """
    folder = plain.open_folder(source)
    try:
        status = os.fstat(folder)
        if identity not in {None, (status.st_dev, status.st_ino)}:
            raise OSError(errno.ESTALE, "another folder has come in its place", source)
        return kernel.open_tree("", folder)
    finally:
        os.close(folder)


def make(target: str, *, is_folder: bool) -> None:
    """Make the folder or file `target`, on which something is to be mounted, with what is above it."""
    for end in (place for place, letter in enumerate(target) if letter == "/"):
        _make_folder(target[:end])
    if is_folder:
        _make_folder(target)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))


def _make_folder(path: str) -> None:
    try:  # noqa: SIM105  few imports
        os.mkdir(path, 0o755)  # noqa: PTH102  as above
    except FileExistsError:
        pass


def lock(jail: JailOrders) -> None:
    """Close the jail with Landlock, where the kernel has it: a second wall behind the mounts."""
    landlock.restrict(["/"], jail["writable"], connects=False)
