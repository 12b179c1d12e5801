"""Who QEMU is while it serves folders: in the guest, the owner of a shared folder is the guest's own user.

QEMU's 9P server shows the guest the numbers it sees itself, and makes files as the user it runs as.  So QEMU runs in a
user namespace with one user, who has the number of the guest's user inside, and outside is

* for an ordinary user's server, this user: all that the guest writes belongs to it, whoever wrote it there;
* for root's server, the owner of the folder.  So nothing in the guest, not even its root, can make files of root's (or
  set-uid root) in somebody else's folder.

Files of other users show as nobody's (65534).  QEMU's 9P server makes no sockets and fifos in a share: it refuses to
touch special files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from shed.backends.base import Share
from shed.backends.jail.plan import Numbers
from shed.errors import UsageError
from shed.linux import plain

log = logging.getLogger(__name__)


def check_folders(shares: Sequence[Share]) -> list[os.stat_result]:
    """Return the status of the folder of each of `shares`.

    Raises `UsageError` (INVALID_LOCAL_DIR) when one cannot be shared, as when a link is on the way to it.
    """
    return [_check_folder(str(share.path)) for share in shares]


def _check_folder(path: str) -> os.stat_result:
    try:
        return plain.check_folder(path)
    except OSError as error:
        raise UsageError(
            f"local folder {path} cannot be shared: {error.strerror}",
            code="INVALID_LOCAL_DIR",
            hint="name an existing folder of yours",
        ) from error


def plan(shares: Sequence[Share], folders: Sequence[os.stat_result], *, uid: int, gid: int) -> Numbers | None:
    """Return who QEMU must be for `shares` of `folders`, when the server is user `uid` in group `gid`.

    None when nothing is shared.  The first share decides; a folder of somebody else's still works with the rights that
    this leaves.
    """
    if not shares:
        return None
    first, status = shares[0], folders[0]
    for share, other in zip(shares[1:], folders[1:], strict=True):
        if (other.st_uid, share.guest_uid) != (status.st_uid, first.guest_uid):
            log.warning("folder %s has another owner than %s: its files show as nobody's", share.path, first.path)
    owner = (uid, gid) if uid else (status.st_uid, status.st_gid)
    return (first.guest_uid, first.guest_gid, *owner)
