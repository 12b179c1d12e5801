"""Whom commands run as: the image's users, read from its own /etc/passwd and /etc/group, and their environment.

Not through `pwd` and `grp`: those follow /etc/nsswitch.conf into shared libraries of the image, which do not fit our
libc.
"""

from __future__ import annotations

import os

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULTS = {"PATH": PATH, "LANG": "C.UTF-8", "TERM": "xterm-256color"}
_ENVIRONMENT_D = "/etc/environment.d"


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
    """Return the user that `who` means: a name or uid, or one with a group behind a colon.

    Ids need no entry; a uid without one is in root's group, as in a container.

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
            user = User(name, int(name), 0, home="/", login_shell="/bin/sh", groups=[0])
        else:
            raise UnknownUserError(f"no user {name!r} in this image")
    if group:
        user.gid = _gid(group, root)
        user.groups = [user.gid]
    return user


def default_user(of_image: str, otherwise: str, *, root: str = "") -> tuple[User, str]:
    """Return whom commands run as when they do not say: `of_image`, the user that the image names.

    If it names none: `otherwise`, when the image has that user, else root.  If it names one that it does not have, no
    command runs without naming another: the second value says why, and the user, who makes folders, is root.
    """
    for who in (of_image, "" if of_image else otherwise, "root"):
        try:
            if who:
                return find_user(who, root=root), ""
        except UnknownUserError as error:
            if who == of_image:
                return find_user("root", root=root), f"{error}, whom it names as the user of commands: choose another"
    raise AssertionError("root is always found")


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


def command_environment(
    user: User, configured: dict[str, str], asked: dict[str, str], *, root: str = ""
) -> dict[str, str]:
    """Return the environment of a command.

    Later sources win: defaults, what the image and the shed say, environment.d, the user's own, `asked`.

    HOME, USER, LOGNAME and SHELL are always the user's: what a service or an image set them to must not leak in.
    """
    env = {**_DEFAULTS, **configured, **_environment_d(f"{root}{_ENVIRONMENT_D}")}
    env |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "SHELL": user.login_shell}
    return env | asked


def starting_folders(asked: str, usual: list[str], user: User) -> list[str]:
    """Return where to start, best first; a folder that was asked for has no substitute."""
    return [asked] if asked else [*usual, user.home, "/"]


def _environment_d(folder: str) -> dict[str, str]:
    """Return what the `*.conf` files of `folder` set, in the order of their names.

    Lines are KEY=VALUE, the value maybe in quotes.
    """
    found: dict[str, str] = {}
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".conf"))
    except OSError:
        return found
    for name in names:
        try:
            with open(f"{folder}/{name}", "rb", buffering=0) as file:
                lines = file.read().decode(errors="surrogateescape").splitlines()
        except OSError:
            continue
        for line in lines:
            key, equals, value = line.strip().partition("=")
            if equals and key and not key.startswith("#") and "\0" not in line:
                if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                    value = value[1:-1]
                found[key] = value
    return found
