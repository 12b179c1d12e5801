"""The host folder that a shed sees as its workspace."""

from __future__ import annotations

import os
from pathlib import Path

from shed.backends.base import SHARE_MODES
from shed.errors import ConflictError, NotFoundError, UsageError
from shed.linux import plain

TAG = "workspace"
"""The 9P mount tag of the share."""
TARGET = "/workspace"
_GUEST_USER = b"shed"
_MAX_ID = (1 << 32) - 1
_MAX_PASSWD = 1 << 20


def check_local_dir(text: str) -> str:
    """Return the folder `text` without symlinks when it can be a workspace.

    Raises `UsageError` (INVALID_LOCAL_DIR).
    """
    return check_folder(text, "cannot be a workspace:")


def check_folder(text: str, refusal: str) -> str:
    """Return the folder `text` without symlinks; `refusal` is how it is told that it cannot be shared.

    Raises `UsageError` (INVALID_LOCAL_DIR).
    """
    problem = None
    if "\0" in text or not text.startswith("/"):
        problem = "it is not an absolute path"
    else:
        resolved = os.path.realpath(text)
        problem = _problem(resolved)
        if problem is None:
            return resolved
    raise UsageError(f"{text!r} {refusal} {problem}", code="INVALID_LOCAL_DIR", hint="name a folder that exists here")


def check_mode(mode: str | None, local_dir: str | None) -> str:
    """Return how the guest gets its workspace, the safe way when nothing is said.

    Raises `UsageError` (INVALID_LOCAL_DIR_MODE).
    """
    code = "INVALID_LOCAL_DIR_MODE"
    if mode is None:
        return SHARE_MODES[0]
    if mode not in SHARE_MODES:
        raise UsageError(f"a workspace cannot be {mode!r}", code=code, hint=f"choose from {', '.join(SHARE_MODES)}")
    if local_dir is None:
        raise UsageError("local_dir_mode is for a shed with a local_dir", code=code, hint="name the folder, too")
    return mode


def check_still_there(name: str, folder: str, target: str) -> None:
    """Raise `ConflictError` (LOCAL_DIR_MISSING) unless the `folder` of the shed `name` is still a usable directory.

    A link on the way to it was not there when the folder was named: another shed may have put it there.
    """
    problem = _problem(folder)
    if problem is not None:
        what, way = "workspace", ""
        if target != TARGET:
            what, way = f"folder {target}", f", or take it from the shed: shed mount rm {name} {target}"
        raise ConflictError(
            f"the {what} of shed {name!r}, {folder}, cannot be used: {problem}",
            code="LOCAL_DIR_MISSING",
            hint=f"put the folder back and start the shed again{way}",
        )


def _problem(path: str) -> str | None:
    try:
        plain.check_folder(path)
    except OSError as error:
        return error.strerror or "it cannot be read"
    return None


def guest_owner(root: Path, user: str) -> tuple[int, int]:
    """Return uid and gid of the user of commands in the root file system `root`.

    That is the image's `user`; where it names none, ``shed``, or root without one.
    """
    from shed.erofs.reader import Image  # noqa: PLC0415  most sheds have no shared folder

    name = user.partition(":")[0].encode() or _GUEST_USER
    with Image.open(root) as image:
        try:
            passwd = image.read(image.lookup(b"etc/passwd", follow=True), 0, _MAX_PASSWD)
        except NotFoundError:
            passwd = b""
    for line in passwd.splitlines():
        fields = line.split(b":")
        if len(fields) >= 4 and name in (fields[0], fields[2]) and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3])
    return (int(name), int(name)) if name.isdigit() and int(name) < _MAX_ID else (0, 0)
