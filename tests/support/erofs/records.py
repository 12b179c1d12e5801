"""Entries and images as the records of `support.erofs.tree_record`, to compare them with folders."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable

from shed.entries import Entry
from shed.erofs.reader import Image
from support.erofs.tree_record import Record, named_by_least

_PIECE = 1 << 20


def record_entries(entries: Iterable[Entry]) -> dict[str, Record]:
    """Return what a folder made of `entries` must look like."""
    by_path = {entry.path: entry for entry in entries}
    names: dict[bytes, list[bytes]] = {}
    for path, entry in by_path.items():
        names.setdefault(path if entry.link is None else entry.link, []).append(path)
    records = {}
    for path, same in names.items():
        for name in same:
            records[os.fsdecode(name)] = _entry_record(by_path[path], path, len(same))
    return named_by_least(records)


def _entry_record(entry: Entry, path: bytes, links: int) -> Record:
    record: Record = {
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime * 1_000_000_000 + entry.mtime_ns,
        "xattrs": {os.fsdecode(name): value.hex() for name, value in entry.xattrs.items()},
    }
    if not stat.S_ISDIR(entry.mode):
        record["same"], record["links"] = os.fsdecode(path), links
    if stat.S_ISREG(entry.mode):
        record["size"], record["data"] = entry.size, _entry_digest(entry)
    elif stat.S_ISLNK(entry.mode):
        record["target"] = os.fsdecode(entry.target)
    elif stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
        record["device"] = [os.major(entry.rdev), os.minor(entry.rdev)]
    return record


def _entry_digest(entry: Entry) -> str:
    digest = hashlib.sha256()
    position = 0
    while entry.content and position < entry.size:
        piece = entry.content.pread(min(_PIECE, entry.size - position), position)
        digest.update(piece)
        position += len(piece)
    return digest.hexdigest()


def record_image(image: Image) -> dict[str, Record]:
    """Return what our reader finds in `image`."""
    records = {}
    first: dict[int, str] = {}
    for path, inode in image.walk():
        name = os.fsdecode(path)
        record: Record = {
            "mode": inode.mode,
            "uid": inode.uid,
            "gid": inode.gid,
            "mtime": inode.mtime * 1_000_000_000 + inode.mtime_ns,
            "xattrs": {os.fsdecode(key): value.hex() for key, value in image.xattrs(inode).items()},
        }
        if not stat.S_ISDIR(inode.mode):
            record["same"], record["links"] = first.setdefault(inode.nid, name), inode.nlink
        if stat.S_ISREG(inode.mode):
            digest = hashlib.sha256()
            for piece in image.chunks(inode):
                digest.update(piece)
            record["size"], record["data"] = inode.size, digest.hexdigest()
        elif stat.S_ISLNK(inode.mode):
            record["target"] = os.fsdecode(image.readlink(inode))
        elif inode.device:
            record["device"] = list(inode.device)
        records[name] = record
    return named_by_least(records)


def differences(actual: dict[str, Record], wanted: dict[str, Record], *, ignore: Iterable[str] = ()) -> list[str]:
    """Return what differs, in words; `ignore` names fields that are not compared."""
    found = [f"{name!r} is missing" for name in wanted.keys() - actual.keys()]
    found += [f"{name!r} is too much" for name in actual.keys() - wanted.keys()]
    for name in wanted.keys() & actual.keys():
        for field in (wanted[name].keys() | actual[name].keys()) - set(ignore):
            left, right = actual[name].get(field), wanted[name].get(field)
            if left != right:
                found.append(f"{name!r}: {field} is {left!r:.300}, not {right!r:.300}")
    return sorted(found)
