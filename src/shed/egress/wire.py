"""What the server and the relay's process say to each other: JSON behind its length, with descriptors beside it.

A request is ``{"do": "open" | "rule" | "close" | "list" | "watch" | "counts" | "hello" | "retire" | "names", ...}``;
its answer ``{"ok": true, ...}`` or ``{"error": "a sentence"}``.  ``open`` brings the three sockets of a shed's network
namespace.

A server works with a process of its own version alone.  ``hello`` asks for that; one of another version is told to
``retire``: it takes no more connections, and ends when those that it has do.  Until then it is still told ``rule`` and
``close``, so these words, ``list`` and ``names`` must stay as they are, whatever the version.  After the answer to
``watch`` the relay's process sends what `shed.egress.watching` says, until the other side leaves.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

MOST = 4 << 20
"""Bytes of one message: a thousand rules take a tenth of it."""
MOST_DESCRIPTORS = 4
_LENGTH = 4


class Closed(Exception):  # noqa: N818  it is an end, not an error
    """The other side has left."""


def encoded(message: dict[str, Any]) -> bytes:
    """Return a message behind its length."""
    data = json.dumps(message, separators=(",", ":")).encode()
    return len(data).to_bytes(_LENGTH, "big") + data


def send(sock: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Send one message.  Raises `OSError`."""
    data = encoded(message)
    if descriptors:
        socket.send_fds(sock, [data[:_LENGTH]], descriptors)
        data = data[_LENGTH:]
    sock.sendall(data)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and what came with it.  Raises `Closed`, `OSError`, and `ValueError` for nonsense."""
    head, descriptors, _, _ = socket.recv_fds(sock, _LENGTH, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if len(head) != _LENGTH:
        raise Closed
    size = _size(head)
    data = bytearray()
    while len(data) < size:
        if not (part := sock.recv(min(65536, size - len(data)))):
            raise Closed
        data += part
    return _decoded(data), list(descriptors)


async def next_message(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next message that comes by `reader`.  Raises as `receive` does."""
    try:
        return _decoded(await reader.readexactly(_size(await reader.readexactly(_LENGTH))))
    except asyncio.IncompleteReadError:
        raise Closed from None


def _size(head: bytes) -> int:
    size = int.from_bytes(head, "big")
    if size > MOST:
        raise ValueError(f"a message of {size} bytes")
    return size


def _decoded(data: bytes | bytearray) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except RecursionError:
        raise ValueError("a message that nests too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("a message that is not an object")
    return message
