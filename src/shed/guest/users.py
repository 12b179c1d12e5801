"""The image's users, read from its own /etc/passwd and /etc/group.

Not through `pwd` and `grp`: those follow /etc/nsswitch.conf into shared libraries of the image, which do not fit our
libc.
"""

from __future__ import annotations


class UnknownUserError(Exception):
    """No such user in the image."""


class User:
    """Whom a command runs as."""

    __slots__ = ("gid", "groups", "home", "login_shell", "name", "uid")

    def __init__(self, name: str, uid: int, gid: int, *, home: str, login_shell: str, groups: list[int]) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home
        self.login_shell = login_shell
        self.groups = groups


def find_user(who: str, *, root: str = "") -> User:
    """Return the user that `who` means: a name or uid, or one with a group behind a colon.  Ids need no entry.

    Raises `UnknownUserError`.

    `root` is the folder that holds etc/.
    """
    name, _, group = who.partition(":")
    for fields in _entries(f"{root}/etc/passwd", 7):
        if name in {fields[0], fields[2]}:
            gid = int(fields[3])
            user = User(
                fields[0],
                int(fields[2]),
                gid,
                home=fields[5] or "/",
                login_shell=fields[6] or "/bin/sh",
                groups=_groups(fields[0], gid, root),
            )
            break
    else:
        if name == "root":
            user = User("root", 0, 0, home="/root", login_shell="/bin/sh", groups=[0])
        elif name.isdecimal():
            user = User(name, int(name), int(name), home="/", login_shell="/bin/sh", groups=[])
        else:
            raise UnknownUserError(f"no user {name!r} in this image")
    if group:
        user.gid = _gid(group, root)
        user.groups = [user.gid]
    return user


def default_user(wanted: str, *, root: str = "") -> User:
    """Return the user `wanted` when the image has it, else root."""
    try:
        return find_user(wanted, root=root)
    except UnknownUserError:
        return find_user("root", root=root)


def _gid(group: str, root: str) -> int:
    for fields in _entries(f"{root}/etc/group", 4):
        if group in {fields[0], fields[2]}:
            return int(fields[2])
    if group.isdecimal():
        return int(group)
    raise UnknownUserError(f"no group {group!r} in this image")


def _groups(name: str, gid: int, root: str) -> list[int]:
    groups = [gid]
    for fields in _entries(f"{root}/etc/group", 4):
        if name in fields[3].split(",") and int(fields[2]) not in groups:
            groups.append(int(fields[2]))
    return groups


def _entries(path: str, count: int) -> list[list[str]]:
    """Return the lines of a passwd-like file that have `count` fields and a number in the third.

    None when there is no file.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read().decode(errors="surrogateescape")
    except OSError:
        return []
    lines = [line.split(":") for line in text.splitlines()]
    return [f for f in lines if len(f) >= count and f[2].isdecimal() and (count < 7 or f[3].isdecimal())]
