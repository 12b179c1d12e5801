"""The kernel as a judge of images: mount, and compare every name, attribute and byte with the entries that went in."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from shed.entries import Entry

_PIECE = 1 << 20


@contextlib.contextmanager
def mounted(image: Path, target: Path) -> Iterator[Path]:
    """Mount `image` read-only on the folder `target`, which is made if need be; needs root."""
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", image, target], check=True, capture_output=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True, capture_output=True)


def differences(entries: Iterable[Entry], root: Path, *, owners: bool = True) -> list[str]:
    """Return, one line each, how what is in the folder `root` differs from `entries`; `owners` includes uid, gid and
    trusted xattrs.
    """
    top = os.fsencode(root)
    found = []
    by_path = {entry.path: entry for entry in entries}
    names = {entry.link or entry.path: 0 for entry in by_path.values()}
    for entry in by_path.values():
        names[entry.link or entry.path] += 1
    for path, entry in by_path.items():
        full = top + b"/" + path if path else top
        real = by_path[entry.link] if entry.link else entry
        try:
            found += [f"{path!r}: {line}" for line in _compare(real, full, names[real.path], owners)]
            if entry.link and not os.path.samestat(os.lstat(full), os.lstat(top + b"/" + entry.link)):
                found.append(f"{path!r}: is not the same inode as {entry.link!r}")
        except OSError as error:
            found.append(f"{path!r}: {error}")
    found += [f"{path!r}: should not be there" for path in _walk(top) if path not in by_path]
    return found


def _compare(entry: Entry, full: bytes, names: int, owners: bool) -> Iterator[str]:
    status = os.lstat(full)
    wanted: dict[str, object] = {"mode": oct(entry.mode), "mtime": entry.mtime * 1_000_000_000 + entry.mtime_ns}
    actual: dict[str, object] = {"mode": oct(status.st_mode), "mtime": status.st_mtime_ns}
    if owners:
        wanted["owner"], actual["owner"] = (entry.uid, entry.gid), (status.st_uid, status.st_gid)
        wanted["xattrs"] = {os.fsdecode(name): value for name, value in entry.xattrs.items()}
        actual["xattrs"] = {
            name: os.getxattr(full, name, follow_symlinks=False) for name in os.listxattr(full, follow_symlinks=False)
        }
    if not stat.S_ISDIR(entry.mode):
        wanted["links"], actual["links"] = names, status.st_nlink
    if stat.S_ISREG(entry.mode):
        wanted["size"], actual["size"] = entry.size, status.st_size
    elif stat.S_ISLNK(entry.mode):
        wanted["target"], actual["target"] = entry.target, os.readlink(full)  # noqa: PTH115  # a path of bytes
    elif not stat.S_ISDIR(entry.mode):
        wanted["device"], actual["device"] = entry.rdev, status.st_rdev
    for name, value in wanted.items():
        if actual[name] != value:
            yield f"{name} is {str(actual[name])[:200]}, not {str(value)[:200]}"
    if stat.S_ISREG(entry.mode) and entry.content is not None:
        with open(full, "rb") as file:
            for offset in range(0, entry.size, _PIECE):
                length = min(_PIECE, entry.size - offset)
                if file.read(length) != entry.content.pread(length, offset):
                    yield f"content differs in the megabyte at {offset}"
                    break


def _walk(top: bytes) -> Iterator[bytes]:
    pending = [b""]
    while pending:
        path = pending.pop()
        for item in os.scandir(top + b"/" + path if path else top):
            name = path + b"/" + item.name if path else item.name
            yield name
            if item.is_dir(follow_symlinks=False):
                pending.append(name)
