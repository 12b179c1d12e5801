"""A server of the internet that streams events, and sends the next one only when the last one has arrived.

Run as ``python eventorigin.py PORT [CERTIFICATE]``: it serves until it is killed, over TLS if there is a certificate.
``/events`` is a stream of three; ``/seen`` says that one has arrived, and has to come on another connection.
"""

from __future__ import annotations

import http.server
import ssl
import sys
import threading

SEEN = threading.Semaphore(0)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Stream, or go on."""
        self.send_response(200)
        if self.path == "/seen":
            SEEN.release()
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(3):
            self.wfile.write(f"data: {number}\n\n".encode())
            SEEN.acquire()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(port: str, certificate: str = "") -> None:
    """Serve."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(port)), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
