"""The one error of the EROFS code."""

from __future__ import annotations

from shed.errors import DataError


class ErofsError(DataError):
    """A tree that cannot be written as EROFS, or bytes that are not a valid EROFS image.

    `rule` is the stable name of the rule that is broken (``unsorted``, ``checksum``).  `nid` is the number of the inode
    that breaks it, None when no inode is to blame.
    """

    code = "EROFS_INVALID"

    def __init__(self, message: str, *, rule: str, nid: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.rule = rule
        self.nid = nid


def shown(path: bytes) -> str:
    """Return a path of the image for a message: on one line, and printable, whatever bytes are in it."""
    return "/" + repr(path.decode(errors="backslashreplace"))[1:-1].replace("\\\\", "\\")
