"""A file tree as a stream of entries: layers are flattened into one, and a writer of file systems takes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

MAX_PATH = 4095
"""Most bytes of a path, and of a symlink's target: Linux opens no longer one by name."""


class Content(Protocol):
    """The bytes of a regular file, read piecewise; several threads may read at once."""

    def pread(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at `offset`; fewer only at the end of the file."""
        ...


@dataclass(slots=True)
class Entry:
    """One path of the tree.

    `path` is relative to the root, without a leading or trailing slash, raw bytes; the root itself is ``b""``.  A
    stream of entries is sorted by the path's components (``path.split(b"/")``), so that a directory comes before what
    it contains, and each path occurs once.
    """

    path: bytes
    mode: int
    """Type and permission bits, as in `stat`."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Seconds since the epoch; may be negative."""
    mtime_ns: int = 0
    rdev: int = 0
    """Device number as `os.makedev` makes it; for character and block devices."""
    size: int = 0
    """Bytes of a regular file."""
    target: bytes = b""
    """Where a symlink points."""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    """Full names (``security.capability``) and values."""
    content: Content | None = None
    """For a regular file that is not empty."""
    link: bytes | None = None
    """The path of another entry, when this one is a hardlink to it; then all other fields but `path` are ignored.

    That entry is not a hardlink itself, and not a directory.  It may come later in the stream.
    """
