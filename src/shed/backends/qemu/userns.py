"""User namespaces for 9P shares: in the guest, the owner of a shared folder is the guest's own user.

QEMU's 9P server shows the guest the numbers it sees itself, and makes files as the user it runs as.  So QEMU runs in a
user namespace where the folder's owner has the number of the guest's user:

* **An ordinary user's server**: one map, {guest user ← this user}.  All that the guest writes belongs to this user,
  whoever wrote it there.
* **Root's server, a folder of root's**: the same.
* **Root's server, somebody else's folder**: {root ← root} to open disks and sockets, and {guest user ← owner}; then
  QEMU becomes the owner.  So nothing in the guest, not even its root, can make files of root's (or set-uid root) there.
* **Root's server, somebody else's folder, a guest whose user is its root**: no map; root is root on both sides.

Files of other users show as nobody's (65534).  QEMU's 9P server makes no sockets and fifos in a share: it refuses to
touch special files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shed.backends.base import Share
from shed.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """The users of a QEMU that serves directories: pairs of (number inside, number outside).

    For root's server, also whom QEMU becomes inside.
    """

    uids: tuple[tuple[int, int], ...]
    gids: tuple[tuple[int, int], ...]
    become: tuple[int, int] | None = None
    """User and group as seen inside the namespace."""

    @property
    def namespace(self) -> bool:
        """Whether numbers differ at all."""
        return any(inside != outside for inside, outside in self.uids + self.gids)

    def without_namespace(self) -> Identity:
        """Return what is left to do where user namespaces are forbidden: the guest then sees the host's numbers."""
        if self.become is None:
            return Identity((), ())
        return Identity((), (), (dict(self.uids)[self.become[0]], dict(self.gids)[self.become[1]]))


NOBODY = Identity((), ())
"""Nothing is shared: QEMU is who we are."""


def check_folder(path: Path) -> os.stat_result:
    """Return the status of a folder to share; raise `UsageError` (INVALID_LOCAL_DIR) when it cannot be shared."""
    reason = ""
    try:
        status = path.stat()
        if not path.is_dir():
            reason = "is not a folder"
        elif not os.access(path, os.R_OK | os.X_OK):
            reason = "cannot be read"
    except FileNotFoundError:
        reason = "does not exist"
    except OSError as error:
        reason = f"cannot be used: {error.strerror}"
    if reason:
        raise UsageError(
            f"local folder {path} {reason}", code="INVALID_LOCAL_DIR", hint="name an existing folder of yours"
        )
    return status


def plan(shares: Sequence[Share], *, uid: int, gid: int) -> Identity:
    """Return who QEMU must be for `shares`, when the server is user `uid` in group `gid`.

    The first share decides; a folder of somebody else's still works with the rights that this leaves.
    """
    if not shares:
        return NOBODY
    first = shares[0]
    status = check_folder(first.path)
    for share in shares[1:]:
        other = check_folder(share.path)
        if (other.st_uid, share.guest_uid) != (status.st_uid, first.guest_uid):
            log.warning("folder %s has another owner than %s: its files show as nobody's", share.path, first.path)
    if uid or not status.st_uid:
        return Identity(((first.guest_uid, uid),), ((first.guest_gid, gid),))
    if not first.guest_uid or not first.guest_gid:  # the guest's user is its root: there is no number left for ours
        return Identity(((0, 0),), ((0, 0),))
    groups = ((0, 0), (first.guest_gid, status.st_gid)) if status.st_gid else ((first.guest_gid, 0),)
    return Identity(((0, 0), (first.guest_uid, status.st_uid)), groups, (first.guest_uid, first.guest_gid))


def write_maps(pid: int, identity: Identity) -> None:
    """Give the namespace that process `pid` has just entered its maps.  Raises OSError."""
    process = Path("/proc") / str(pid)
    if os.geteuid():
        (process / "setgroups").write_text("deny")
    (process / "gid_map").write_text(_lines(identity.gids))
    (process / "uid_map").write_text(_lines(identity.uids))


def _lines(pairs: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{inside} {outside} 1\n" for inside, outside in pairs)
