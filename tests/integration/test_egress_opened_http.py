"""What HTTP can do goes through an opened connection, and what it must not do does not."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.netlab import lab
from support.servers.openedshed import PLACEHOLDER, Shed
from support.servers.tlsorigin import PASSWORD

pytestmark = pytest.mark.root
BEARER = f"Authorization: Bearer {PLACEHOLDER}"
RAW = """
import socket, ssl, sys
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="api.example.com")
sock = socket.create_connection(("api.example.com", 443), timeout=20)
def do(step, *words):
    while True:
        try:
            return step(*words)
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            data = sock.recv(65536)
            incoming.write(data) if data else incoming.write_eof()
do(tls.do_handshake)
tls.write(eval(sys.argv[1]))
if "half" in sys.argv:
    try:
        tls.unwrap()  # says that this is all, and goes on reading
    except ssl.SSLWantReadError:
        pass
sock.sendall(outgoing.read())
got = b""
try:
    while data := do(tls.read, 65536):
        got += data
except ssl.SSLZeroReturnError:
    pass
except OSError as error:
    got += b"\\n<" + type(error).__name__.encode() + b">"
print(repr(got))
"""


@pytest.fixture(scope="module")
def shed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shed]:
    """A shed, for all tests of this file."""
    with lab(tmp_path_factory.mktemp("lab")) as net:
        yield Shed(net)


def raw(shed: Shed, request: bytes, *words: str) -> str:
    """Return what the client gets that sends these bytes."""
    return str(ast.literal_eval(shed.python(RAW, repr(request), *words).removesuffix("\n[0]")).decode("latin-1"))


def test_events_come_when_they_are_sent(shed: Shed) -> None:
    """The first one arrives while the server waits before the next one."""
    (shed.folder / "go").unlink(missing_ok=True)
    trust = f"CURL_CA_BUNDLE={shed.bundle}"
    with shed.net.talk_in_guest("env", trust, "curl", "-sSN", "https://api.example.com/sse", "-H", BEARER) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "data: first\n"
        (shed.folder / "go").touch()
        assert child.stdout.read() == "\ndata: second\n\ndata: third\n\n"


WEBSOCKET = """
import base64, os, socket, ssl, struct, sys
sock = socket.create_connection(("api.example.com", 443), timeout=20)
tls = ssl.create_default_context().wrap_socket(sock, server_hostname="api.example.com")
key = base64.b64encode(os.urandom(16)).decode()
head = "\\r\\n".join([
    "GET /ws HTTP/1.1", "Host: api.example.com", "Upgrade: websocket", "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {key}", f"X-Key: {sys.argv[1]}", "Sec-WebSocket-Version: 13", "", "",
])
def frame(text):
    mask = os.urandom(4)
    return struct.pack("!BB", 0x81, 0x80 | len(text)) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text))
tls.sendall(head.encode() + frame(b"early"))
file = tls.makefile("rb")
print(file.readline().decode().strip())
while file.readline().strip():
    pass
print(file.read(7))
for text in (b"one", sys.argv[2].encode()):
    tls.sendall(frame(text))
    print(file.read(2 + len(text)))
tls.unwrap()
"""


def test_a_websocket_is_opened_and_then_left_alone(shed: Shed) -> None:
    """Both ways, with what was sent before the answer; the head has the value."""
    stars = "*" * len(PASSWORD)  # a value that comes back in one piece is masked here, too
    assert shed.python(WEBSOCKET, PLACEHOLDER, PASSWORD) == (
        f"HTTP/1.1 101 Switching Protocols\nb'\\x81\\x05early'\nb'\\x81\\x03one'\nb'\\x81!{stars}'\n[0]"
    )
    assert shed.header("X-Key") == [PASSWORD]


def test_uploads_arrive_as_they_are(shed: Shed, tmp_path: Path) -> None:
    """By length and in chunks, with and without waiting to be asked for it, with trailers."""
    file = tmp_path / "upload"
    file.write_bytes(bytes(range(256)) * 12_000)
    told = f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_size}"
    url = "https://api.example.com/upload"
    assert shed.curl(url, "-T", str(file)) == f"{told} length ()\n[0]"
    assert shed.curl(url, "-T", str(file), "-H", "Transfer-Encoding: chunked") == f"{told} chunked []\n[0]"
    assert shed.curl(url, "-T", str(file), "-H", "Expect: 100-continue") == f"{told} length ()\n[0]"
    said = shed.curl("-v", url, "-T", str(file), "-H", "Expect: 100-continue", "--expect100-timeout", "600")
    assert "HTTP/1.1 100 Continue" in said
    trailed = (
        b"POST /upload HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    trailed += b"3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nContent-Length: 5\r\n\r\n"
    assert "3 chunked ['x-sum: 1']" in raw(shed, trailed)


def test_answers_arrive_as_they_are(shed: Shed) -> None:
    """Without bodies where there are none, with trailers, to clients of HTTP/1.0 too."""
    said = shed.curl("-I", "https://api.example.com/hello")
    assert "Content-Length: 6" in said
    assert "hello" not in said
    for status in ("204", "304"):
        assert f"HTTP/1.1 {status} " in shed.curl("-i", f"https://api.example.com/nothing?status={status}", "-m", "20")
    assert "X-Sum: 42" in raw(shed, b"GET /trailers HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n")
    old = raw(shed, b"GET /trailers HTTP/1.0\r\n\r\n")
    assert "chunked" not in old.lower()
    assert old.endswith("\r\n\r\nbody\n")
    assert shed.curl("-0", "https://api.example.com/hello") == "hello\n[0]"
    two = b"GET /hello HTTP/1.1\r\nHost: api.example.com\r\n\r\n" * 2
    assert raw(shed, two, "half").count("hello\n") == 2


def test_a_server_may_answer_before_the_request_has_ended(shed: Shed, tmp_path: Path) -> None:
    """The client gets that answer."""
    file = tmp_path / "upload"
    file.write_bytes(bytes(30 << 20))
    assert shed.curl("https://api.example.com/refuse", "-T", str(file)).startswith("no\n")


def test_a_server_that_ends_its_connection_is_connected_again(shed: Shed) -> None:
    """The client's connection goes on."""
    url = "https://api.example.com/once"
    said = shed.curl("-w", "%{num_connects}\n", url, url, url)
    assert said.startswith("once\n1\nonce\n")


def test_much_is_streamed_in_little_memory(shed: Shed) -> None:
    """Half a gigabyte each way, one of them to a client that is slow."""
    before = memory(shed)
    said = shed.run("sh", "-c", "curl -sS 'https://api.example.com/big?megabytes=400' | tee /dev/null | wc -c")
    assert said == f"{400 << 20}\n[0]"
    upload = "head -c 400000000 /dev/zero | curl -sS -T - https://api.example.com/upload"
    assert " 400000000 chunked " in shed.run("sh", "-c", upload)
    slow = "curl -sS --limit-rate 1M 'https://api.example.com/big?megabytes=400' | base64"
    with shed.net.talk_in_guest("env", f"CURL_CA_BUNDLE={shed.bundle}", "sh", "-c", slow) as child:
        assert child.stdout is not None
        for _ in range(20):
            assert child.stdout.read(1 << 16)
        child.stdout.close()
        assert memory(shed) - before < 30 << 20


def memory(shed: Shed) -> int:
    """Return the bytes that the relay's process has in memory."""
    status = Path(f"/proc/{shed.net.netd.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


HOST = b"Host: api.example.com\r\n"


@pytest.mark.parametrize("request_bytes", [
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 6\r\n\r\nabcdef",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nabcde",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    b"GET /echo HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    b"GET /echo HTTP/1.1\r\n" + HOST + b"X: a\rSmuggled: b\r\n\r\n",
    b"GET /echo HTTP/1.1\r\n" + HOST + b"X y: b\r\n\r\n",
    b"GET /echo HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"GET /echo HTTP/1.1\r\n" + HOST + b"Host: other.example.com\r\n\r\n",
    b"GET /echo HTTP/1.1\r\n\r\n",
    b"GET https://api.example.com/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://169.254.169.254/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /echo HTTP/1.1 \r\n" + HOST + b"\r\n",
    b"GET /ec ho HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /echo\r\n\r\n",
    b"GET /echo HTTP/9.9\r\n" + HOST + b"\r\n",
    b"CONNECT api.example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"TRACE /echo HTTP/1.1\r\n" + HOST + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /echo HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    b"GET /echo HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 12_000 + b"\r\n",
    b"\x16\x03\x01" + b"x" * 200,
])  # fmt: skip
def test_what_two_programs_might_read_differently_is_not_sent(shed: Shed, request_bytes: bytes) -> None:
    """It is answered in the server's place, and ends the connection."""
    before = len(shed.requests())
    said = raw(shed, request_bytes, "half")
    assert re.match(r"HTTP/1\.1 (400|403|431|501|505) ", said), said[:300]
    assert len(shed.requests()) == before


def test_what_is_sent_was_written_anew(shed: Shed) -> None:
    """Folded lines, bare line feeds, headers for the next program, unknown upgrades: none of them gets there."""
    raw(
        shed,
        b"GET /echo HTTP/1.1\n"
        + HOST
        + b"X-Fold: a\r\n b\r\nConnection: close, X-Named\r\nX-Named: 1\r\nKeep-Alive: 1\r\n"
        b"Proxy-Authorization: x\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    )
    known = {name.lower(): value for name, value in shed.requests()[-1]["headers"]}
    assert known == {
        "host": "api.example.com", "x-fold": "a b", "http2-settings": "x", "accept-encoding": "identity",
    }  # fmt: skip


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"nonsense\r\n\r\n", b"",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nsecret bytes",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
])  # fmt: skip
def test_a_server_that_answers_nonsense_is_said_to(shed: Shed, answer: bytes) -> None:
    """With 502 and a sentence."""
    said = shed.curl(
        "-i", "-G", "https://api.example.com/raw", "--data-urlencode", f"bytes={base64.b64encode(answer).decode()}"
    )
    assert said.startswith("HTTP/1.1 502 ")
    assert "shed: the server does not answer as it should" in said


def test_an_answer_that_breaks_off_is_not_passed_for_a_whole_one(shed: Shed) -> None:
    """The client's connection breaks, too."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf of it"
    said = shed.curl(
        "-G", "https://api.example.com/raw", "--data-urlencode", f"bytes={base64.b64encode(answer).decode()}"
    )
    assert said.startswith("half of it")
    assert not said.endswith("[0]")
