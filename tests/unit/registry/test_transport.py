"""Encryption, certificates and proxies."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from shed.errors import RegistryError, UnavailableError
from shed.oci import media
from shed.oci.digest import digest_bytes
from shed.oci.registry.client import Repository
from shed.oci.registry.credentials import Credentials
from shed.oci.registry.reference import parse_reference
from shed.oci.registry.transport import Transport, same_origin
from support.registries.scripted_registry import Handler, Registry

Connect = Callable[..., Repository]
DIGEST = digest_bytes(b"blob")


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server with a certificate of its own making, which answers everything with ``{}``: its address, and the
    certificate.
    """
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    subprocess.run([*command, "-days", "2", "-keyout", key, "-out", certificate], check=True, capture_output=True)

    class Answer(Handler):
        def serve(self) -> None:
            self.answer(200, b"{}", Content_Type=media.MANIFEST)

        do_GET = serve  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"localhost:{server.server_address[1]}", certificate
    server.shutdown()
    thread.join()
    server.server_close()


def test_certificates(
    registry: Registry, connect: Connect, encrypted: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nobody vouches for is refused at once, with what can be done; SSL_CERT_FILE makes it good."""
    address, certificate = encrypted
    registry.once("GET", "v1", lambda handler: handler.answer(307, Location=f"https://{address}/x"), times=2)
    with pytest.raises(RegistryError, match=f"no encrypted connection to {address}: self.signed certificate") as caught:
        connect().get_manifest("v1")
    assert (caught.value.code, len(registry.seen)) == ("REGISTRY_TLS", 1)
    assert "SSL_CERT_FILE" in (caught.value.hint or "")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert connect().get_manifest("v1").data == b"{}"


def test_a_registry_on_this_machine_with_encryption(
    encrypted: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out; the certificate counts as anywhere, and --insecure means what it says."""
    address, certificate = encrypted
    reference = parse_reference(f"{address}/me/app:v1")
    with Repository(reference) as repository, pytest.raises(RegistryError, match=r"self.signed certificate"):
        repository.get_manifest("v1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Repository(reference) as repository:
        assert repository.get_manifest("v1").data == b"{}"
    with Repository(reference, insecure=True, waits=()) as repository, pytest.raises(UnavailableError):
        repository.get_manifest("v1")


@pytest.mark.parametrize(
    "answer", [b"", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.0 400 Bad Request\r\n\r\nto an HTTPS server.\n"]
)
def test_no_credentials_without_a_plain_answer(answer: bytes) -> None:
    """Who does not answer a plain request as a plain registry gets a TLS handshake, and when that fails nothing
    more.
    """
    got = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while data := (connection := listener.accept()[0]).recv(4096):
                with connection:
                    got.append(data)
                    connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        reference = parse_reference(f"localhost:{listener.getsockname()[1]}/me/app:v1")
        with (
            Repository(reference, credentials=Credentials(registry_token="s3cret"), waits=()) as repository,
            pytest.raises((RegistryError, UnavailableError)),
        ):
            repository.get_manifest("v1")
        socket.create_connection(listener.getsockname()).close()
        thread.join()
    assert [data.split(b" ")[0] for data in got[:1]] == [b"GET"]
    assert [data[:2] for data in got[1:]] == [b"\x16\x03"]
    assert b"s3cret" not in b"".join(got)


def test_encryption_where_there_is_none(registry: Registry, connect: Connect) -> None:
    """Told at once."""
    registry.once("GET", "v1", lambda handler: handler.answer(307, Location=f"https://{registry.address}/x"))
    with pytest.raises(RegistryError, match="no encrypted connection to") as caught:
        connect().get_manifest("v1")
    assert "--insecure" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "url",
    [
        "http://ghcr.io/v2/a",
        "http://localhost.example.com/a",
        "http://10.0.0.1/a",
        "http://127.0.0.1/a",
        "http://localhost:5000/a",
    ],
)
def test_what_is_encrypted_stays_so(url: str) -> None:
    """Wherever a registry that is spoken to with encryption leads, by redirect or as the place of an upload."""
    with pytest.raises(RegistryError, match="which is not encrypted"):
        Transport("ghcr.io").send("it", "GET", url, {})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://ghcr.io/a", "https://ghcr.io:443/b?c", True), ("http://GHCR.io", "http://ghcr.io:80/", True),
        ("https://ghcr.io", "http://ghcr.io", False), ("https://ghcr.io", "https://ghcr.io:444", False),
        ("https://ghcr.io", "https://ghcr.io.example.org", False),
        ("https://ghcr.io", "https://ghcr.io@example.org", False), ("http://[::1]:80", "http://[::1]", True),
        ("https://me@ghcr.io", "https://ghcr.io", True),
    ],
)  # fmt: skip
def test_origins(one: str, other: str, *, same: bool) -> None:
    """Who gets the credentials: the same scheme, host and port, however they are written."""
    assert same_origin(one, other) is same


def test_proxies(registry: Registry, monkeypatch: pytest.MonkeyPatch, connect: Connect) -> None:
    """The environment's proxy is used, with its password, except for this machine and for what the environment
    excepts.
    """
    registry.blobs[DIGEST] = b"blob"
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@{registry.address}")
    far = Repository(
        parse_reference("registry.invalid:5000/me/app"), insecure=True, credentials=Credentials(), waits=()
    )
    assert far.has_blob(DIGEST) == 4
    assert registry.seen[-1].headers["host"] == "registry.invalid:5000"
    assert registry.seen[-1].headers["proxy-authorization"].startswith("Basic ")
    connect().has_blob(DIGEST)
    assert "proxy-authorization" not in registry.seen[-1].headers
    monkeypatch.setenv("no_proxy", "registry.invalid")
    with pytest.raises(Exception, match="its name is not known"):
        Repository(parse_reference("registry.invalid:5000/me/app"), insecure=True, waits=()).has_blob(DIGEST)
