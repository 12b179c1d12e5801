"""What goes between a client and the program that keeps a folder in a guest: frames of a letter, a length, a payload.

========  ======================================================  ================================================
to guest  payload, its fields apart by NUL                        answer
========  ======================================================  ================================================
HELLO     folder, key, ``1`` to make it, patterns left out        HELLO: two tokens, mark
LOOK      nothing for all of it, or paths                         ENTRIES, any number, then END: nothing or an error
DIGESTS   paths                                                   RESULT for each
GET       entry, path                                             DATA, any number, then RESULT
PUT       entry or nothing, mode, time, path; DATA, any number;   RESULT
          then COMMIT or ABORT
LINK      entry or nothing, time, path, where it leads            RESULT
MAKE      mode, path                                              RESULT
REMOVE    entry, path                                             RESULT
MOVE      entry, path, new name                                   RESULT
SETTLE    token                                                   RESULT, once all is on the disk
NEWS      nothing                                                 one NEWS, at some time
========  ======================================================  ================================================

An ``entry`` says what must be at the path, else nothing is done.  A RESULT begins with ``+`` (then ``1`` when the
entry's mark will tell any later change, the entry, and a digest), with ``~`` when what is there is another, or with
``!`` and why it failed.  ENTRIES hold an entry, a path, and where it leads, for each.  NEWS holds ``2``, paths that
changed, an empty field, and what ENTRIES would say of them; or ``1`` and paths; or ``0``: all may have changed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.replica.entry import Entry

HELLO, LOOK, DIGESTS, GET, PUT, LINK, MAKE, REMOVE, MOVE, SETTLE, NEWS = b"HLDGPKMXNSW"
DATA, COMMIT, ABORT, ENTRIES, END, RESULT = b"dcaEeR"
MOST_PAYLOAD = 1 << 20
MOST_NEWS = 16 * 1024
"""Bytes of news: they fit into what the client may leave unread while it writes."""
HEADER = 5


class WireError(Exception):
    """What came is no such frame."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return kind.to_bytes(1, "big") + len(payload).to_bytes(4, "big") + payload


def fields(*parts: bytes | str | int) -> bytes:
    """Return fields of a payload."""
    return b"\0".join(
        part if isinstance(part, bytes) else os.fsencode(part) if isinstance(part, str) else b"%d" % part
        for part in parts
    )


def record(path: str, entry: Entry) -> bytes:
    """Return what ENTRIES hold of an entry."""
    return fields(entry.encode(), path, entry.link, b"")


class Frames:
    """Takes a stream apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take more of it."""
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """Return the next frame, None until more is fed.  Raises `WireError`."""
        if len(self._buffer) < HEADER:
            return None
        size = int.from_bytes(self._buffer[1:HEADER], "big")
        if size > MOST_PAYLOAD:
            raise WireError(f"a frame of {size} bytes")
        if len(self._buffer) < HEADER + size:
            return None
        found = self._buffer[0], bytes(self._buffer[HEADER : HEADER + size])
        del self._buffer[: HEADER + size]
        return found
