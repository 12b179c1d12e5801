"""Saying no in words that the program inside understands.

A connection that is refused is accepted first, so that its client says what it speaks: HTTP is answered with 403 and a
sentence, TLS with the alert ``access_denied``, all else is reset.  Clients that wait for the server to speak first
(SSH, SMTP) are told after a moment of silence.
"""

from __future__ import annotations

import asyncio
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
    if not said.startswith(METHODS):
        return b""
    body = f"{sentence}\n{hint}\n".encode()
    head = (
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nX-Shed-Egress: refused\r\n\r\n"
    )
    return head.encode() + (b"" if said.startswith(b"HEAD ") else body)
