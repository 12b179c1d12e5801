"""A folder as comparable records: every name, attribute and byte of it.

Run as a program it prints the records as JSON.  It needs the standard library alone, so that it also runs inside a
guest.
"""

# The paths here are bytes.
# ruff: noqa: PTH115, PTH118, PTH208

import hashlib
import json
import os
import stat
import sys
from typing import Any

Record = dict[str, Any]
_PIECE = 1 << 20


def record_folder(root: bytes, *, xattrs: bool = True) -> dict[str, Record]:
    """Return the record of everything in `root` by its path; the root itself is ``""``."""
    first: dict[tuple[int, int], str] = {}
    records = {}
    pending = [b""]
    while pending:
        path = pending.pop()
        full = os.path.join(root, path) if path else root
        status = os.lstat(full)
        name = os.fsdecode(path)
        record: Record = {
            "mode": status.st_mode,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime": status.st_mtime_ns,
            "xattrs": _xattrs(full) if xattrs else {},
        }
        if stat.S_ISDIR(status.st_mode):
            pending.extend(os.path.join(path, child) for child in os.listdir(full))
        else:
            record["same"] = first.setdefault((status.st_dev, status.st_ino), name)
            record["links"] = status.st_nlink
        if stat.S_ISREG(status.st_mode):
            record["size"], record["data"] = status.st_size, _digest(full)
        elif stat.S_ISLNK(status.st_mode):
            record["target"] = os.fsdecode(os.readlink(full))
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            record["device"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
        records[name] = record
    return named_by_least(records)


def named_by_least(records: dict[str, Record]) -> dict[str, Record]:
    """Let each set of hardlinks be called by the least of its names, whatever the order they were met in."""
    least: dict[str, str] = {}
    for name, record in records.items():
        if "same" in record:
            least[record["same"]] = min(name, least.get(record["same"], name))
    for record in records.values():
        if "same" in record:
            record["same"] = least[record["same"]]
    return records


def _xattrs(path: bytes) -> dict[str, str]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)
    }


def _digest(path: bytes) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    json.dump(record_folder(os.fsencode(sys.argv[1])), sys.stdout)
