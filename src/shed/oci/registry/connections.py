"""Connections to a registry and where it leads: allowed addresses, time limits, and how they are cut.

**Addresses.**  A registry may lead elsewhere: by redirect, by the place of an upload, by the token server that it
names.  It could lead into a network that it cannot reach itself.  So the address that a connection really has, whatever
its name resolved to, must be no further inside than the registry's own: public, private, link-local, this machine.
That is looked at before a byte is sent.

**Patience.**  Who sends less than `LEAST_RATE` is hung up on, and so is who sends much that is no content.  Only the
time is counted in which we wait.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Collection
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from shed.errors import RegistryError
from shed.oci.registry.reference import is_loopback

CHUNK = 1 << 20
LEAST_RATE = 1024
"""Bytes per second that a registry must send, averaged over `WINDOW`."""
WINDOW = 60.0
"""Seconds of waiting."""
HEAD_TIME = 180.0
"""Seconds that we wait for the head of an answer: a registry may have to compare gigabytes with their digest first."""
MAX_HEAD = 256 << 10
"""Most bytes of a head, with all interim answers before it."""
_OVERHEAD = 4 << 20
"""Bytes of an answer's body that may be no content, beside as many as are: the frames of chunks."""
_TIMEOUT = urllib3.Timeout(connect=20, read=HEAD_TIME)
_CONNECTIONS = 8
"""Kept open to each host."""
_PUBLIC, _PRIVATE, _LINK_LOCAL, _LOOPBACK = range(4)
_WHERE = ("the public", "the private", "the link-local", "this machine's")


class SlowError(TimeoutError):
    """Who is connected sends too slowly, or too much that is no content."""


class Meter:
    """Hears what comes over one connection while one answer is read, and raises `SlowError`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.in_head = True
        self.content = 0
        """Bytes of content so far."""
        self._received = 0
        self._waited = 0.0
        self._window = 0.0, 0
        """What was waited and received when the rate was last looked at."""

    def add(self, count: int, waited: float) -> None:
        """Note that `count` bytes came after `waited` seconds."""
        self._received += count
        self._waited += waited
        if self.in_head:
            if self._waited > HEAD_TIME or self._received > MAX_HEAD:
                raise SlowError("the head of its answer does not end")
            return
        if self._received > MAX_HEAD + 2 * self.content + _OVERHEAD:
            raise SlowError("it sends what is no content")
        seconds, count = self._waited - self._window[0], self._received - self._window[1]
        if seconds >= WINDOW:
            if count < LEAST_RATE * seconds:
                raise SlowError(f"it sends less than {LEAST_RATE >> 10} KiB per second")
            self._window = self._waited, self._received


class _Metered(io.RawIOBase):
    """A connection's input, through a meter."""

    def __init__(self, raw: io.RawIOBase, meter: Meter) -> None:
        self._raw = raw
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        before = self._meter.clock()
        count = self._raw.readinto(buffer)
        self._meter.add(count or 0, self._meter.clock() - before)
        return count

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            super().close()


class _Response(http.client.HTTPResponse):
    """An answer that is read through a meter."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._sock = sock
        self._meter = Meter()
        self.fp: Any = io.BufferedReader(_Metered(self.fp.detach(), self._meter))

    def begin(self) -> None:
        super().begin()
        self._meter.in_head = False
        with contextlib.suppress(OSError):  # it has hung up, and reading tells
            self._sock.settimeout(WINDOW)

    def read(self, amt: int | None = None) -> bytes:
        data = super().read(amt)
        self._meter.content += len(data)
        return data


class Connections:
    """The connections of one client to the registry `authority` (``host[:port]``) and to where that leads.

    Usable by several threads.

    `private_hosts` may be inside although the registry is not.
    """

    def __init__(self, authority: str, private_hosts: Collection[str] = ()) -> None:
        place = urllib3.util.parse_url(f"//{authority}")
        self._host = _plain(place.host)
        self._ports = {place.port} if place.port else {80, 443}
        self._allowed = frozenset(private_hosts)
        address = _literal(self._host)
        self._inside = None if address is None else _inside(address)
        """How far inside the registry is, as far as that is known: as little as it ever was."""
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._aborted = False
        self._lock = threading.Lock()

    def pool(self, proxy: str) -> urllib3.PoolManager:
        """Return the connections by way of `proxy`, empty for the direct ones."""
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _pool(proxy)
                self._pools[proxy].pool_classes_by_scheme = self._classes(direct=not proxy)
            return self._pools[proxy]

    def abort(self) -> None:
        """Cut all connections, also those still being made, so that whoever waits for one of them waits no more."""
        self._aborted = True
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            _cut(each)

    def close(self) -> None:
        """Close all connections that nobody uses; new requests make new ones."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()

    def check(self, host: str, port: int, address: str | None = None) -> None:
        """Raise `RegistryError` (REGISTRY_LEADS_INSIDE) when neither the registry nor `host` may be at `address`.

        Without it, `host` is looked at alone, which may be an address itself; names are not resolved.
        """
        host = _plain(host)
        address = address or _literal(host)
        if address is None or host in self._allowed:
            return
        where, own = _inside(address), self._is_own(host, port)
        most = self._inside if self._inside is not None else where if own else _PUBLIC
        if where > most:
            what = (
                f"the registry {host} is now at" if own else f"the registry {self._host} leads to {host}, which is at"
            )
            hint = f"if that is meant to be, add {host} to limits.private_hosts in server.yaml"
            raise RegistryError(f"{what} {_WHERE[where]} address {address}", code="REGISTRY_LEADS_INSIDE", hint=hint)

    def _is_own(self, host: str, port: int) -> bool:
        return host == self._host and port in self._ports

    def _made(self, connection: HTTPConnection, *, direct: bool) -> None:
        """Note a connection that was made, and encrypted if it is to be."""
        sock = connection.sock
        with self._lock:
            self._sockets.add(sock)
            if direct and self._is_own(_plain(connection.host), connection.port):
                with contextlib.suppress(OSError):  # it has hung up
                    where = _inside(sock.getpeername()[0])
                    self._inside = where if self._inside is None else min(self._inside, where)
        if self._aborted:
            _cut(sock)

    def _classes(self, *, direct: bool) -> dict[str, type[urllib3.HTTPConnectionPool]]:
        """Return pools whose connections are checked, unless a proxy chooses them, and known to `abort`."""

        def checked(connection: HTTPConnection, sock: socket.socket) -> socket.socket:
            try:
                if direct:
                    self.check(connection.host, connection.port, sock.getpeername()[0])
            except BaseException:
                sock.close()
                raise
            return sock

        made = functools.partial(self._made, direct=direct)

        class Plain(HTTPConnection):
            response_class = _Response

            def _new_conn(self) -> socket.socket:
                return checked(self, super()._new_conn())

            def connect(self) -> None:
                super().connect()
                made(self)

        class Encrypted(HTTPSConnection):
            response_class = _Response

            def _new_conn(self) -> socket.socket:
                return checked(self, super()._new_conn())

            def connect(self) -> None:
                super().connect()
                made(self)

        return {
            "http": type("PlainPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": Plain}),
            "https": type("EncryptedPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": Encrypted}),
        }


def _pool(proxy: str) -> urllib3.PoolManager:
    make: Callable[..., urllib3.PoolManager] = urllib3.PoolManager
    if proxy:
        url = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=url.auth) if url.auth else None
        make = functools.partial(urllib3.ProxyManager, url._replace(auth=None).url, proxy_headers=headers)
    return make(maxsize=_CONNECTIONS, timeout=_TIMEOUT, blocksize=CHUNK, ssl_context=ssl.create_default_context())


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(
            connection, socket.SHUT_RDWR
        )  # not the method of an SSLSocket, which takes TLS away from who is reading


def _plain(host: str | None) -> str:
    return (host or "").strip("[]").rstrip(".").lower()


def _literal(host: str) -> str | None:
    """Return the address that `host` is without anybody being asked."""
    if is_loopback(host):
        return "127.0.0.1" if host == "localhost" else host
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _inside(address: str) -> int:
    """Return how far inside an address is."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback or found.is_unspecified:
        return _LOOPBACK
    return _LINK_LOCAL if found.is_link_local else _PUBLIC if found.is_global else _PRIVATE
