"""Saying no in words that the program inside understands.

A connection that is refused is accepted first, so that its client says what it speaks: HTTP, on whatever port, is
answered with 403 and a sentence, SSH with a disconnect that has the sentence, TLS with the alert ``access_denied``; all
else is reset.  Clients that wait for the server to speak first (SMTP) are told by that after a moment of silence.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct

_LISTEN = 2.0
"""Seconds that a client has to say what it speaks."""
METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE ")
"""How a request of HTTP begins."""
TLS_HANDSHAKE = 22
"""The first byte of a client that speaks TLS."""
_ACCESS_DENIED = bytes((21, 3, 3, 0, 2, 2, 49))
"""A fatal alert (RFC 8446, section 6.2)."""
_REQUEST = re.compile(rb"[A-Z]{3,20} \S+ HTTP/1\.[01]\r?\n")
"""The first line of a request with any other method."""
_SSH_DISCONNECT, _SSH_NOT_ALLOWED = 1, 1
"""A message and its reason, RFC 4253, section 11.1."""
_RESET = struct.pack("ii", 1, 0)
"""struct linger: close at once, with a reset."""


async def refuse(client: socket.socket, sentence: str, hint: str) -> None:
    """Tell the client at `client` that it may not, and close it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LISTEN):
            said = await loop.sock_recv(client, 4096)
        answer = _answer(said, sentence, hint)
        if answer:
            async with asyncio.timeout(_LISTEN):
                await loop.sock_sendall(client, answer)
                client.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(client, 65536):  # a reset would take the answer back
                    pass
            return
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except TimeoutError:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # it has left
    finally:
        client.close()


def _answer(said: bytes, sentence: str, hint: str) -> bytes:
    """Return what to tell a client that began with `said`; nothing when there is no way to."""
    if said[:1] == bytes((TLS_HANDSHAKE,)):
        return _ACCESS_DENIED
    if said.startswith(b"SSH-"):
        return _ssh(f"{sentence}; {hint}".replace("\n", "; "))
    if not said.startswith(METHODS) and not _REQUEST.match(said):
        return b""
    body = f"{sentence}\n{hint}\n".encode()
    head = (
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nX-Shed-Egress: refused\r\n\r\n"
    )
    return head.encode() + (b"" if said.startswith(b"HEAD ") else body)


def _ssh(words: str) -> bytes:
    """Return how a server of SSH says, before any keys were exchanged, that it does not go on (RFC 4253)."""
    text = words.encode()
    payload = struct.pack("!BII", _SSH_DISCONNECT, _SSH_NOT_ALLOWED, len(text)) + text + struct.pack("!I", 0)
    padding = 8 - (5 + len(payload)) % 8 + 8  # 4 bytes at least, to a multiple of 8
    return b"SSH-2.0-shed\r\n" + struct.pack("!IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)
