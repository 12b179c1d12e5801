"""A server of the internet that speaks HTTPS, and writes down what it was sent.

Run as ``python tlsorigin.py FOLDER PORT CERTIFICATE``: it serves until it is killed.  Each request is a line of
``FOLDER/requests``, with its headers.  What it answers depends on the path, and is said where it is done.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

PASSWORD = "s3cret-value-of-the-origin/+=0123"
"""The one that ``/private`` takes, by Basic, by Bearer and by query."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    folder: Path
    trailers: Sequence[str] = ()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle_one(self) -> None:
        """Answer a request by its path."""
        self.url = urlsplit(self.path)
        self.query = dict(parse_qsl(self.url.query))
        with (self.folder / "requests").open("a") as file:
            told = {
                "method": self.command,
                "target": self.path,
                "headers": [list(pair) for pair in self.headers.items()],
            }
            file.write(json.dumps(told) + "\n")
        first = unquote(self.url.path).split("/")[1]
        getattr(self, f"do_{first.replace('.', '_')}", self.do_missing)()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = handle_one  # noqa: N815

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        if "Transfer_Encoding" not in headers:
            headers["Content_Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        """Return the request's body."""
        return b"".join(self.parts())

    def parts(self) -> Iterator[bytes]:
        """Yield the request's body as it comes."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.trailers = [line.decode().strip() for line in iter(self.rfile.readline, b"\r\n")]
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (part := self.rfile.read1(min(left, 1 << 20))):
            left -= len(part)
            yield part

    @property
    def is_let_in(self) -> bool:
        """Whether the request has the password, and how."""
        said = self.headers.get("Authorization", "")
        if said.startswith("Basic "):
            return base64.b64decode(said[6:]).decode().partition(":")[2] == PASSWORD
        return said in {f"Bearer {PASSWORD}", f"token {PASSWORD}"} or self.query.get("key") == PASSWORD

    def do_missing(self) -> None:
        """There is nothing of that name."""
        self.answer(b"missing\n", 404)

    def do_hello(self) -> None:
        """A few bytes."""
        self.answer(b"hello\n")

    def do_private(self) -> None:
        """A few bytes for those who have the password."""
        self.body()
        if self.is_let_in:
            self.answer(b"welcome\n")
        else:
            self.answer(b"who are you?\n", 401, WWW_Authenticate='Basic realm="x"')

    def do_echo(self) -> None:
        """The request's target, headers and body; compressed or in pieces if the query says so."""
        said = {
            "target": self.path,
            "headers": dict(self.headers.items()),
            "body": self.body().decode("latin-1"),
            "protocol": getattr(self.connection, "selected_alpn_protocol", lambda: None)(),
        }
        data = json.dumps(said).encode()
        if "gzip" in self.query:
            self.answer(gzip.compress(data), Content_Encoding="gzip")
        elif "pieces" in self.query:
            pieces = b"".join(b"1\r\n%s\r\n" % data[at : at + 1] for at in range(len(data)))
            self.answer(pieces + b"0\r\n\r\n", Transfer_Encoding="chunked")
        else:
            self.answer(
                data,
                X_Reflected=self.headers.get("X-Key", ""),
                X_Credentials=self.headers.get("Authorization", ""),
            )

    def chunks(self, parts: Iterable[bytes], *trailers: bytes, **headers: str) -> None:
        """Send an answer in chunks."""
        self.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for part in parts:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n")

    def do_sse(self) -> None:
        """Three events; the second and third wait until the file `go` is there."""

        def events() -> Iterator[bytes]:
            yield b"data: first\n\n"
            while not (self.folder / "go").exists():
                time.sleep(0.02)
            yield b"data: second\n\n"
            yield b"data: third\n\n"

        self.chunks(events(), Content_Type="text/event-stream")

    def do_trailers(self) -> None:
        """A body with a trailer."""
        self.chunks([b"body\n"], b"X-Sum: 42")

    def do_upload(self) -> None:
        """The hash, size and framing of what was sent."""
        digest, size = hashlib.sha256(), 0
        for part in self.parts():
            digest.update(part)
            size += len(part)
        framed = self.headers.get("Transfer-Encoding", "length")
        self.answer(f"{digest.hexdigest()} {size} {framed} {self.trailers}\n".encode())

    def do_refuse(self) -> None:
        """An answer before the request has ended, and the end."""
        self.close_connection = True
        self.answer(b"no\n", 413, Connection="close")

    def do_big(self) -> None:
        """As many megabytes as the query says."""
        count = int(self.query["megabytes"])
        self.send_response(200)
        self.send_header("Content-Length", str(count << 20))
        self.end_headers()
        block = bytes(range(256)) * 4096
        for _ in range(count):
            self.wfile.write(block)

    def do_redirect(self) -> None:
        """To where the query says."""
        self.answer(b"", 302, Location=self.query["to"])

    def do_nothing(self) -> None:
        """No body, because of the status."""
        self.send_response(int(self.query.get("status", "204")))
        self.send_header("ETag", '"x"')
        self.end_headers()

    def do_raw(self) -> None:
        """The bytes that the query has, as they are, and the end."""
        self.close_connection = True
        self.wfile.write(base64.b64decode(self.query["bytes"]))

    def do_once(self) -> None:
        """A few bytes, and the end a moment later, without a word about it."""
        self.answer(b"once\n")
        self.close_connection = True

    def do_ws(self) -> None:
        """A WebSocket that sends back each text that it gets, and ends when the client does."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.wfile.flush()
        while head := self.rfile.read(2):
            size = head[1] & 127
            mask, data = self.rfile.read(4), self.rfile.read(size)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            self.wfile.write(struct.pack("!BB", head[0], size) + text)
        self.close_connection = True

    def do_git(self) -> None:
        """Git's own server for the repositories below ``FOLDER/git``; everything for those who have the password."""
        if self.is_let_in:
            self.do_open()
        else:
            self.body()
            self.answer(b"", 401, WWW_Authenticate='Basic realm="git"')

    def do_open(self) -> None:
        """The same for everybody."""
        body = self.body()
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.folder / "git"), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "me",
            "PATH_INFO": self.url.path.removeprefix("/git").removeprefix("/open"), "QUERY_STRING": self.url.query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "CONTENT_LENGTH": str(len(body)),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        self.answer(data, status, **headers)

    def do_files(self) -> None:
        """Files below ``FOLDER/files`` for those who have the password."""
        path = self.folder / "files" / self.url.path.removeprefix("/files/").strip("/")
        if not self.is_let_in:
            self.answer(b"", 401, WWW_Authenticate='Basic realm="files"')
        elif path.is_dir():
            self.answer((path / "index.html").read_bytes(), Content_Type="text/html")
        elif path.is_file():
            self.answer(path.read_bytes(), Content_Type="application/octet-stream")
        else:
            self.do_missing()


class Server(http.server.ThreadingHTTPServer):
    """Speaks TLS in the threads of its clients."""

    request_queue_size = 512
    context: ssl.SSLContext

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Serve one connection; who does not like our certificate is gone."""
        with contextlib.suppress(OSError):
            request.settimeout(60)
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
                wrapped.unwrap()


def main(folder: str, port: str, certificate: str) -> None:
    """Serve."""
    Handler.folder = Path(folder)
    server = Server(("0.0.0.0", int(port)), Handler)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(certificate)
    server.context.set_alpn_protocols(["http/1.1"])
    print("ready", flush=True)  # noqa: T201  whoever started this waits for it
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
