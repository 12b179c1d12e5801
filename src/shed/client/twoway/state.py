"""What two folders had in common when they were last alike, kept on this machine.

A token says which state it is.  The shed has it, too, on the disk with what the state tells of: a shed whose disk went
back in time, or that was made anew, has another one, and then the state tells nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from shed.client.twoway.tree import Base, Tree
from shed.fsutil import atomic_write

_VERSION = 2
_DIGEST = 32
"""Bytes at the end: SHA-256 of all before."""


@dataclass
class State:
    """See above."""

    token: str = ""
    marks: list[str] = field(default_factory=lambda: ["", ""])
    """By which the two folders are known to be the same ones still; empty where a disk keeps none."""
    aside: dict[str, str] = field(default_factory=dict)
    """Where what the shed had in conflicts is kept, and what it was called."""
    tree: Tree = field(default_factory=Tree)


def key_of(server: str, shed: str, here: str, there: str) -> str:
    """Return the name under which the state of two folders is kept."""
    return hashlib.sha256("\0".join((server, shed, here, there)).encode(errors="surrogateescape")).hexdigest()[:32]


def encoded(state: State) -> bytes:
    """Return the state as it is written, with no token."""
    lines = [json.dumps({"version": _VERSION, "marks": state.marks, "aside": state.aside})]
    for path, node in state.tree.all():
        base = node.base
        if base is not None:
            marks = [list(mark) if mark is not None else None for mark in base.marks]
            lines.append(json.dumps([path, base.kind, base.executable, base.size, base.content.hex(), marks]))
    return "\n".join(lines).encode()


def write(path: Path, token: str, data: bytes) -> None:
    """Write what `encoded` has returned.  Raises `StorageError`."""
    content = token.encode() + b"\n" + data
    atomic_write(path, content + hashlib.sha256(content).digest())


def read(path: Path) -> State | None:
    """Return the state in the file `path`, None where there is none that can be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[:-_DIGEST]
    if hashlib.sha256(content).digest() != data[-_DIGEST:]:
        return None
    token, head, *lines = content.decode().split("\n")
    said = json.loads(head)
    if said["version"] != _VERSION:
        return None
    state = State(token, said["marks"], said["aside"])
    for line in lines:
        name, kind, executable, size, digest, marks = json.loads(line)
        known = [tuple(mark) if mark is not None else None for mark in marks]
        state.tree.make(name).base = Base(kind, executable, size, bytes.fromhex(digest), known)
    return state
