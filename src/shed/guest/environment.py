"""The environment and the starting folder of a command."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.users import User

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULTS = {"PATH": _PATH, "LANG": "C.UTF-8", "TERM": "xterm-256color"}
_ENVIRONMENT_D = "/etc/environment.d"


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


def starting_folders(asked: str, workspace: str, user: User) -> list[str]:
    """Return where to start, best first; a folder that was asked for has no substitute."""
    return [asked] if asked else [workspace, user.home, "/"]


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
