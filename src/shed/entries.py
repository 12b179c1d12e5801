"""A file tree as a stream of entries: what layers are flattened into, and what a writer is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

MAX_PATH = 4095
"""Most bytes of a path, and of a symlink's target: Linux opens no longer one by name."""


class Content(Protocol):
    """The bytes of a regular file, read piecewise; must be safe to call from several threads at once."""

    def pread(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at `offset`; fewer only at the end of the file."""
        ...


@dataclass(slots=True)
class Entry:
    """One path of the tree.

    `path` is relative to the root, without a leading or trailing slash, raw bytes; the root itself is ``b""``.  A
    stream of entries is sorted by the path's components (``path.split(b"/")``), so that a folder comes before what it
    holds, and each path occurs once.
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
    """When set, this is another name of the inode of the entry with that path (a hardlink); all else but `path` is
    ignored. The entry it names is not a link itself, may come later in the stream, and is never a folder.
    """
