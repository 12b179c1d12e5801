"""Making a real folder of entries, to give to other tools."""

# The paths here are bytes.
# ruff: noqa: PTH101, PTH102, PTH211

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from shed.entries import Entry

_PIECE = 1 << 20


def make_folder(entries: Iterable[Entry], folder: Path) -> Path:
    """Make the new folder `folder` hold `entries`, with owners, devices and trusted xattrs: it takes root."""
    top = os.fsencode(folder)
    made: list[tuple[bytes, Entry]] = []
    links: list[tuple[bytes, bytes]] = []
    for entry in entries:
        path = top + b"/" + entry.path if entry.path else top
        if entry.link is not None:
            links.append((top + b"/" + entry.link, path))
            continue
        if stat.S_ISDIR(entry.mode):
            os.mkdir(path)
        elif stat.S_ISREG(entry.mode):
            _write(path, entry)
        elif stat.S_ISLNK(entry.mode):
            os.symlink(entry.target, path)
        else:
            os.mknod(path, entry.mode, entry.rdev)
        made.append((path, entry))
    for target, path in links:
        os.link(target, path, follow_symlinks=False)
    for path, entry in reversed(made):  # a folder's time last, when nothing is put in it any more
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(path, stat.S_IMODE(entry.mode))
        for name, value in entry.xattrs.items():
            os.setxattr(path, os.fsdecode(name), value, follow_symlinks=False)
        time = entry.mtime * 1_000_000_000 + entry.mtime_ns
        os.utime(path, ns=(time, time), follow_symlinks=False)
    return folder


def _write(path: bytes, entry: Entry) -> None:
    with open(path, "wb") as file:
        for offset in range(0, entry.size, _PIECE):
            assert entry.content
            piece = entry.content.pread(min(_PIECE, entry.size - offset), offset)
            if piece.count(0) != len(piece):
                file.seek(offset)
                file.write(piece)
        file.truncate(entry.size)
