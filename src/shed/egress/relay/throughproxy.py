"""Connections through the host's HTTP proxy, by CONNECT."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable

from shed.egress.rules.addresses import Address
from shed.proxies import Proxy

HTTP = 80
"""Where sheds speak HTTP without TLS, and where proxies refuse CONNECT."""
_DIAL = 10.0
"""Seconds for the proxy to take the connection."""
_ANSWER = 60.0
"""Seconds for it to reach the other side."""
_MOST_HEAD = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([ -~]{0,60}))?")
Resolve = Callable[[str], Awaitable[list[Address]]]


class ProxyError(OSError):
    """The proxy cannot be reached, or refuses; the text says which."""


async def reach(proxy: Proxy, resolve: Resolve) -> socket.socket:
    """Return a connection to the proxy.  Raises `ProxyError`."""
    try:
        addresses = await resolve(proxy.host)
    except OSError as error:
        raise ProxyError(f"the proxy {proxy} cannot be looked up: {error.strerror}") from None
    why = "there is no such name"
    for address in addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(_DIAL):
                await asyncio.get_running_loop().sock_connect(sock, (str(address), proxy.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except TimeoutError:
            why = "it does not answer"
            sock.close()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise ProxyError(f"the proxy {proxy} cannot be reached: {why}")


async def connect(proxy: Proxy, resolve: Resolve, host: str, port: int) -> socket.socket:
    """Return a connection to `port` of `host`, a name or an address, through the proxy.  Raises `ProxyError`."""
    sock = await reach(proxy, resolve)
    try:
        head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n".encode()
        if proxy.authorization:
            head += b"Proxy-Authorization: " + proxy.authorization + b"\r\n"
        async with asyncio.timeout(_ANSWER):
            await asyncio.get_running_loop().sock_sendall(sock, head + b"\r\n")
            answer = await _head(sock)
        found = _STATUS.match(answer)
        if found is None:
            raise ProxyError(f"what answers as the proxy {proxy} is none")
        if not found[1].startswith(b"2"):
            raise ProxyError(f"the proxy {proxy} refuses: {found[1].decode()} {(found[2] or b'').decode()}".rstrip())
    except TimeoutError:
        sock.close()
        raise ProxyError(f"the proxy {proxy} does not answer") from None
    except ProxyError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise ProxyError(f"the proxy {proxy} hangs up: {os.strerror(error.errno or 0)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _head(sock: socket.socket) -> bytes:
    """Return the head of an answer, and take no byte of what follows.  Raises `OSError`."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    head = b""
    loop.add_reader(sock, ready.set)
    try:
        while len(head) < _MOST_HEAD:
            ready.clear()
            await ready.wait()
            try:
                seen = sock.recv(_MOST_HEAD, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            end = (head + seen).find(b"\r\n\r\n")
            head += sock.recv(len(seen) if end < 0 else end + 4 - len(head))
            if end >= 0 or not seen:
                break
    finally:
        loop.remove_reader(sock)
    return head
