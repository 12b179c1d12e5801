"""A registry on loopback that keeps to the distribution specification, until a test tells it to fail, to lie, or to ask
for credentials.

It holds everything in memory and shows every request that it got, but for ``GET /v2/``, by which a client learns
whether it is encrypted.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from shed.oci.digest import Digest, digest_bytes, is_digest

Fault = Callable[["Handler"], bool]
"""Answers a request in place of the registry, or returns False to leave it to the registry after all."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes = b""


@dataclass
class Registry:
    """What the registry holds, how it behaves, and what it saw."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """By tag and by digest: media type and bytes."""
    mountable: set[str] = field(default_factory=set)
    """Digests that it takes over from other repositories."""
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    address: str = ""
    ranges: bool = True
    streams: bool = True
    """Whether an upload may come as one stream; otherwise every piece needs a Content-Range."""
    largest_piece: int = 1 << 40
    headers_of_upload: dict[str, str] = field(default_factory=dict)
    location: Callable[[str], str] = lambda path: path
    """How it writes the place of an upload."""
    basic: tuple[str, str] | None = None
    """User and password that it wants with every request."""
    bearer: bool = False
    """Whether it wants tokens, from its own ``/token``."""
    realm: str = ""
    tokens_password: tuple[str, str] | None = None
    """User and password that ``/token`` wants."""
    identity_token: str = ""
    tokens: dict[str, list[str]] = field(default_factory=dict)
    """Tokens it gave that are still good, and their scopes."""
    lifetime: int | None = None
    _faults: list[tuple[str, str, Fault]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes) -> Digest:
        """Hold a blob."""
        digest = digest_bytes(data)
        self.blobs[digest] = data
        return digest

    def add_manifest(self, tag: str, data: bytes, media_type: str) -> Digest:
        """Hold a manifest under a tag and its digest."""
        digest = digest_bytes(data)
        self.manifests[tag] = self.manifests[digest] = media_type, data
        return digest

    def once(self, method: str, part: str, fault: Fault, *, times: int = 1) -> None:
        """Let `fault` answer the next requests of `method` whose path holds `part`."""
        self._faults += [(method, part, fault)] * times

    def fault(self, seen: Seen) -> Fault | None:
        """Take the fault that waits for a request."""
        with self._lock:
            for number, (method, part, fault) in enumerate(self._faults):
                if method == seen.method and part in seen.path:
                    del self._faults[number]
                    return fault
        return None

    def requests(self, method: str, part: str = "") -> list[Seen]:
        """Return the requests of `method` whose path holds `part`."""
        return [seen for seen in self.seen if seen.method == method and part in seen.path]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    registry: Registry
    request_seen: Seen

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def handle_one_request(self) -> None:
        """Forgive whoever leaves early."""
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def body(self, length: int | None = None) -> bytes:
        """Return what comes with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)) if length is None else length)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """Send a whole answer; underscores in header names stand for hyphens."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def error(self, status: int, code: str, message: str, **headers: str) -> bool:
        """Answer as registries tell errors."""
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        return self.answer(status, body, Content_Type="application/json", **headers)

    def end(self) -> bool:
        """End the connection, whatever was sent."""
        self.close_connection = True
        return True

    def reset(self) -> bool:
        """Cut the connection hard."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        return True

    def serve(self) -> None:
        """Answer one request."""
        place = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path == "/v2/":
            assert "authorization" not in headers
            self.answer(200, b"{}")
            return
        self.request_seen = Seen(self.command, place.path, parse_qs(place.query), headers)
        self.registry.seen.append(self.request_seen)
        fault = self.registry.fault(self.request_seen)
        if fault and fault(self):
            return
        if place.path == "/token":
            self.token()
            return
        if self.authorized():
            match = re.fullmatch(r"/v2/(.+?)/(manifests|blobs|blobs/uploads)/([^/]*)", place.path)
            if match:
                getattr(self, match[2].replace("/", "_"))(match[1], match[3])
            else:
                self.error(404, "NAME_UNKNOWN", "no such place")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve  # noqa: N815

    def authorized(self) -> bool:
        """Say whether the request may pass; otherwise it is answered."""
        registry, given = self.registry, self.headers.get("Authorization", "")
        if registry.basic and given != basic(*registry.basic):
            self.close_connection = True
            self.error(
                401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="a \\"registry\\""'
            )
            return False
        if registry.bearer and given.removeprefix("Bearer ") not in registry.tokens:
            self.close_connection = True
            repository = re.sub(r"^/v2/(.+)/(manifests|blobs)/.*", r"\1", self.request_seen.path)
            realm = registry.realm or f"http://{registry.address}/token"
            challenge = f'Bearer realm="{realm}",service="scripted, really",scope="repository:{repository}:pull"'
            self.error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
            return False
        return True

    def token(self) -> None:
        """Give a token to who knows the identity token, or the password, if one is set."""
        registry, query = self.registry, self.request_seen.query
        if self.command == "POST":
            query = parse_qs(self.body().decode())
            good = query.get("refresh_token") == [registry.identity_token] and query["grant_type"] == ["refresh_token"]
        else:
            password = registry.tokens_password
            good = password is None or self.headers.get("Authorization") == basic(*password)
        if not good:
            self.error(401, "UNAUTHORIZED", "wrong password")
            return
        token = f"token-{len(registry.seen)}"
        registry.tokens[token] = [scope for item in query.get("scope", []) for scope in item.split()]
        life = {} if registry.lifetime is None else {"expires_in": registry.lifetime}
        self.answer(200, json.dumps({"access_token": token, **life}).encode(), Content_Type="application/json")

    def manifests(self, repository: str, target: str) -> None:
        """Keep or show a manifest."""
        if self.command == "PUT":
            data = self.body()
            if is_digest(target) and digest_bytes(data) != target:
                self.error(400, "DIGEST_INVALID", "provided digest did not match")
                return
            self.registry.manifests[target] = self.registry.manifests[digest_bytes(data)] = (
                self.headers["Content-Type"],
                data,
            )
            self.answer(201, Location=self.path, Docker_Content_Digest=digest_bytes(data))
        elif target not in self.registry.manifests:
            self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        else:
            media_type, data = self.registry.manifests[target]
            self.answer(200, data, Content_Type=media_type, Docker_Content_Digest=digest_bytes(data))

    def blobs(self, repository: str, digest: str) -> None:
        """Show a blob, or the part that is asked for."""
        data = self.registry.blobs.get(digest)
        if data is None:
            self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and self.registry.ranges:
            start = int(match[1])
            self.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.answer(200, data)

    def blobs_uploads(self, repository: str, name: str) -> None:
        """Take an upload."""
        registry, query = self.registry, self.request_seen.query
        if self.command == "POST":
            mount = query.get("mount", [""])[0]
            if mount in registry.mountable:
                registry.blobs[mount] = b""
                self.answer(201, Location=f"/v2/{repository}/blobs/{mount}")
                return
            name = f"upload-{len(registry.seen)}"
            registry.uploads[name] = bytearray()
            self.place(202, repository, name, **registry.headers_of_upload)
            return
        upload = registry.uploads.get(name)
        if upload is None:
            self.body()
            self.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        elif self.command == "GET":
            self.place(204, repository, name, Range=f"0-{max(0, len(upload) - 1)}")
        elif self.command == "DELETE":
            del registry.uploads[name]
            self.answer(204)
        elif self.command == "PATCH":
            self.patch(repository, name, upload)
        else:
            upload += self.body()
            digest = query["digest"][0]
            if digest_bytes(bytes(upload)) != digest:
                self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
                return
            registry.blobs[digest] = bytes(registry.uploads.pop(name))
            self.answer(201, Location=f"/v2/{repository}/blobs/{digest}")

    def patch(self, repository: str, name: str, upload: bytearray) -> None:
        """Take a piece of an upload."""
        data, place = self.body(), self.headers.get("Content-Range")
        if len(data) > self.registry.largest_piece and (place or not self.registry.streams):
            self.error(416, "SIZE_INVALID", "too large")
        elif (place is None and not self.registry.streams) or (
            place and place != f"{len(upload)}-{len(upload) + len(data) - 1}"
        ):
            self.error(416, "RANGE_INVALID", "wrong range")
        else:
            upload += data
            self.place(202, repository, name, Range=f"0-{len(upload) - 1}")

    def place(self, status: int, repository: str, name: str, **headers: str) -> None:
        """Answer with the place where an upload goes on."""
        self.answer(
            status,
            b"",
            Location=self.registry.location(f"/v2/{repository}/blobs/uploads/{name}?state=x%2Fy"),
            **headers,
        )


def basic(user: str, password: str) -> str:
    """Return an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def scripted_registry(host: str = "127.0.0.1", port: int = 0) -> Iterator[Registry]:
    """Yield a registry that listens at an address of loopback, on a free port unless one is given."""
    registry = Registry()
    server = ThreadingHTTPServer((host, port), type("OneHandler", (Handler,), {"registry": registry}))
    server.daemon_threads = True
    registry.address = f"{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
