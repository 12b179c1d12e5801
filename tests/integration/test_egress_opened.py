"""Real clients behind a relay that opens TLS: who gets a secret's value, and who does not."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.egress.netdfiles import DECISIONS
from support.servers.netlab import lab
from support.servers.openedshed import EXPIRED, OTHER, OTHER_VALUE, PLACEHOLDER, UNKNOWN, WRONG, Shed
from support.servers.tlsorigin import PASSWORD
from support.waiting import wait_until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shed]:
    """A shed, for all tests of this file."""
    with lab(tmp_path_factory.mktemp("lab")) as net:
        yield Shed(net)


@pytest.fixture
def shed(made: Shed) -> Iterator[Shed]:
    """The shed with its usual orders; afterwards no value is found where the guest or others might look."""
    made.order()
    yield made
    log = (made.net.folder / DECISIONS).read_text()
    assert PASSWORD not in log
    assert OTHER_VALUE not in log
    command = (
        Path(f"/proc/{made.net.netd.pid}/cmdline").read_bytes()
        + Path(f"/proc/{made.net.netd.pid}/environ").read_bytes()
    )
    assert PASSWORD.encode() not in command


def test_a_placeholder_becomes_its_value_on_the_way(shed: Shed) -> None:
    """In a header, in Basic authorization and in the query; the shed sees an answer as if it had the value."""
    for words in (
        ["-H", f"Authorization: Bearer {PLACEHOLDER}"],
        ["-H", f"authorization:token {PLACEHOLDER}"],
        ["-u", f"me:{PLACEHOLDER}"],
        ["-G", "-d", f"a=b+c%20d&key={PLACEHOLDER}&z"],
    ):
        assert shed.curl("https://api.example.com/private", *words) == "welcome\n[0]"
    assert shed.requests()[-1]["target"].startswith("/private?a=b+c%20d&key=s3cret-value-of-the-origin%2F%2B%3D0123&z")
    last = shed.net.decisions()
    requests = [entry for entry in last if entry.get("method")]
    assert requests[-1]["path"] == "/private"
    assert (requests[-1]["status"], requests[-1]["secrets"], requests[-1]["allowed"]) == (200, ["API"], True)


def test_other_hosts_are_not_opened(shed: Shed) -> None:
    """Their certificate is their own, and a placeholder is but a word there."""
    assert "certificate" in shed.curl("https://plain.example.com/hello")
    origin = shed.net.folder / "origin.pem"
    origin.write_text(shed.origin.certificate)
    said = shed.curl("--cacert", str(origin), "https://plain.example.com/echo", "-H", f"X-Key: {PLACEHOLDER}")
    assert json.loads(said.removesuffix("[0]"))["headers"]["X-Key"] == PLACEHOLDER


def refused(said: str, *words: str) -> bool:
    """Say whether a client was answered with 403 and a sentence that has these words."""
    return said.startswith("shed: ") and all(word in said for word in words) and "shed egress log dev" in said


def test_a_placeholder_goes_nowhere_else(shed: Shed) -> None:
    """Not by plain HTTP, not to another host, and nobody learns which host it is for."""
    key = f"X-Key: {PLACEHOLDER}"
    assert refused(shed.curl("http://api.example.com:8080/echo", "-H", key), "without TLS")
    before = len(shed.requests())
    for words in (
        ["-H", key],
        ["-u", f"{PLACEHOLDER}:x"],
        ["-G", "-d", f"q=x{PLACEHOLDER}y"],
        ["-G", "-d", f"q=%73{PLACEHOLDER[1:]}"],
        ["-b", f"session={PLACEHOLDER}"],
    ):
        assert refused(shed.curl("https://other.example.com/echo", *words), "the secret API is not for this request")
    assert len(shed.requests()) == before


def test_bodies_paths_and_names_of_headers_are_left_alone(shed: Shed) -> None:
    """A value is not to be found in what others store."""
    said = shed.curl(
        f"https://api.example.com/echo/{PLACEHOLDER}", "-H", f"{PLACEHOLDER}: x", "-d", f"key={PLACEHOLDER}"
    )
    assert PLACEHOLDER in json.loads(said.removesuffix("[0]"))["body"]
    assert json.loads(said.removesuffix("[0]"))["protocol"] == "http/1.1"
    last = shed.requests()[-1]
    assert PLACEHOLDER in last["target"]
    assert any(name.lower() == PLACEHOLDER for name, _ in last["headers"])
    assert PASSWORD not in json.dumps(last)


def test_an_answer_does_not_have_the_value(shed: Shed) -> None:
    """Masked in bodies, however they are cut; a placeholder again in headers."""
    words = ("-H", f"X-Key: {PLACEHOLDER}", "-u", f"me:{PLACEHOLDER}", "--compressed")
    token = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    for query in ("", "?pieces=1", "?key=" + PLACEHOLDER):
        said = shed.curl("-i", f"https://api.example.com/echo{query}", *words)
        assert shed.header("X-Key") == [PASSWORD]
        assert shed.header("Authorization") == [f"Basic {token}"]
        assert shed.header("Accept-Encoding") == ["identity"]
        for secret in (PASSWORD, token, "s3cret"):
            assert secret not in said
        assert "*" * len(PASSWORD) in said
        assert query == "?pieces=1" or f"X-Reflected: {PLACEHOLDER}" in said
        assert query == "?pieces=1" or "X-Credentials: Basic *****" in said


def test_a_redirect_to_another_host_does_not_take_the_value_along(shed: Shed) -> None:
    """Not even when the client sends its headers again; to the same host it does."""
    words = ("-L", "--location-trusted", "-H", f"Authorization: Bearer {PLACEHOLDER}")
    said = shed.curl("https://api.example.com/redirect?to=https://other.example.com/private", *words)
    assert refused(said, "not for this request")
    there = "https://api.example.com/redirect?to=https://api.example.com/private"
    assert shed.curl(there, *words) == "welcome\n[0]"
    said = shed.curl(
        "-i", "-G", "https://api.example.com/redirect", "-d", f"to=https://plain.example.com/{PLACEHOLDER}"
    )
    assert f"Location: https://plain.example.com/{PLACEHOLDER}\n" in said
    assert PASSWORD not in said


def test_a_header_of_the_relay_replaces_the_guests(shed: Shed) -> None:
    """Whatever the guest sent there, in every request; elsewhere the placeholder has no place."""
    shed.order(secrets=shed.known(header=["Authorization", "Bearer {}"]))
    for words in ([], ["-H", "Authorization: Bearer mine", "-H", "authorization: other"], ["-u", "me:mine"]):
        assert shed.curl("https://api.example.com/private", *words) == "welcome\n[0]"
        assert shed.header("Authorization") == [f"Bearer {PASSWORD}"]
    said = shed.curl("https://api.example.com/private", "-H", f"X-Key: {PLACEHOLDER}")
    assert refused(said, "in the header Authorization alone")


def test_a_secret_is_for_some_requests(shed: Shed) -> None:
    """By method and path: the others are not made, whether they carry the value or not."""
    shed.order(secrets=shed.known(methods=["GET"], paths=["/private", "/echo/*"]))
    key = ("-H", f"Authorization: Bearer {PLACEHOLDER}")
    assert shed.curl("https://api.example.com/private", *key) == "welcome\n[0]"
    before = len(shed.requests())
    for words in (
        ["https://api.example.com/private", "-X", "POST"],
        ["https://api.example.com/hello"],
        ["--path-as-is", "https://api.example.com/echo/../hello"],
        ["--path-as-is", "https://api.example.com/echo/%2e%2e/hello"],
        ["https://api.example.com/private", "-H", "X-HTTP-Method-Override: DELETE"],
        ["https://api.example.com/private", "-H", "X_Original_URL: /hello"],
    ):
        assert refused(shed.curl(*words, *key)), words
        assert refused(shed.curl(*words)), words
    assert len(shed.requests()) == before
    assert [entry["allowed"] for entry in shed.net.decisions() if entry.get("method")][-1] is False


def test_a_rule_is_for_some_requests(shed: Shed) -> None:
    """Without any secret; another rule for the same host may allow more; plain HTTP is not passed."""
    limited = {"allow": "plain.example.com", "methods": ["GET"], "paths": ["/hello"]}
    shed.order(limited, secrets=[])
    assert shed.curl("https://plain.example.com/hello") == "hello\n[0]"
    assert refused(shed.curl("https://plain.example.com/hello", "-d", "x"), "POST /hello is not one of: GET /hello")
    assert refused(shed.curl("http://plain.example.com:8080/hello"), "HTTPS alone")
    shed.order(limited, {"allow": "plain.example.com", "methods": ["POST"]}, secrets=[])
    assert shed.curl("https://plain.example.com/upload", "-d", "x").endswith(" 1 length ()\n[0]")
    shed.order(limited, {"allow": "*"}, secrets=[])
    assert "certificate" in shed.curl("https://plain.example.com/hello")
    shed.order(limited, secrets=[], authority=None)
    assert "access denied" in shed.curl("https://plain.example.com/hello").lower()
    assert "no certificate authority" in shed.net.decisions()[-1]["rule"]


@pytest.mark.parametrize(("port", "why"), [
    (EXPIRED, "certificate has expired"), (WRONG, "Hostname mismatch"), (UNKNOWN, "unable to get local issuer"),
])  # fmt: skip
def test_a_server_must_be_who_it_should_be(shed: Shed, port: int, why: str) -> None:
    """Its certificate is looked at before anything is sent, and the client is told what is wrong with it."""
    before = len(shed.requests())
    said = shed.curl(f"https://api.example.com:{port}/private", "-H", f"Authorization: Bearer {PLACEHOLDER}")
    assert said.startswith("shed: the certificate of api.example.com is not valid: ")
    assert why in said
    assert len(shed.requests()) == before


def test_another_name_than_the_connected_one_is_refused(shed: Shed) -> None:
    """In the handshake, in the header Host, and in a later request of the same connection."""
    said = shed.curl("https://other.example.com/hello", "--connect-to", "other.example.com:443:api.example.com:443")
    assert "unrecognized name" in said
    assert "SNI" in shed.net.decisions()[-1]["rule"]
    for host in ("other.example.com", "api.example.com:444", "api.example.com:", "api.example.com@other.example.com"):
        assert refused(shed.curl("https://api.example.com/hello", "-H", f"Host: {host}"), "does not name"), host
    assert shed.curl("https://api.example.com/hello", "-H", "Host: API.example.com.") == "hello\n[0]"
    assert shed.header("Host") == ["api.example.com"]
    said = shed.curl(
        "https://api.example.com/hello", "--next", "-sS", "https://api.example.com/hello",
        "-H", "Host: other.example.com", "-H", f"X-Key: {OTHER}",
    )  # fmt: skip
    assert said.startswith("hello\nshed: ")
    assert "does not name api.example.com" in said


def test_orders_hold_for_the_next_request_at_once(shed: Shed) -> None:
    """A connection whose secret was taken away, or got another value, is cut; others live on."""
    program = KEPT.replace("PORT", "443")
    with shed.net.talk_in_guest("env", f"SSL_CERT_FILE={shed.bundle}", sys.executable, "-uc", program) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "200\n"
        assert shed.order({"allow": "*.example.com"}, {"allow": "more.example.org"}) == 0
        child.stdin.write("again\n")
        child.stdin.flush()
        assert child.stdout.readline() == "200\n"
        assert shed.order(secrets=shed.known(value="another-value-of-it")) == 1
        child.stdin.write("again\n")
        child.stdin.flush()
        assert child.stdout.readline() in {"ConnectionResetError\n", "RemoteDisconnected\n", "SSLEOFError\n"}


KEPT = """
import http.client
connection = http.client.HTTPSConnection("api.example.com", PORT)
connection.connect()
sock = connection.sock
while True:
    try:
        connection.request("GET", "/hello")
        answer = connection.getresponse()
        answer.read()
        print(answer.status)
        assert connection.sock is sock, "another connection"
    except OSError as error:
        print(type(error).__name__)
    input()
"""


def test_a_server_that_speaks_first_is_passed_on(shed: Shed) -> None:
    """At a host that has a secret, too; a client of TLS that hesitates is opened all the same."""
    assert shed.python(GREETED) == "b'220 hello\\r\\n'\n[0]"
    assert shed.python(HESITANT) == "TLSv1.3\n[0]"


GREETED = """
import socket
print(socket.create_connection(("api.example.com", 25), timeout=20).recv(100))
"""
HESITANT = """
import socket, ssl, time
sock = socket.create_connection(("api.example.com", 443), timeout=20)
time.sleep(1.5)  # longer than the relay waits at once
print(ssl.create_default_context().wrap_socket(sock, server_hostname="api.example.com").version())
"""


def test_what_is_under_way_is_cut_when_its_secret_goes(shed: Shed) -> None:
    """A stream of events ends at once, although neither side says anything."""
    (shed.folder / "go").unlink(missing_ok=True)
    before = len(shed.net.decisions())
    words = ("curl", "-sSN", "https://api.example.com/sse", "-H", f"Authorization: Bearer {PLACEHOLDER}")
    with shed.net.talk_in_guest("env", f"CURL_CA_BUNDLE={shed.bundle}", *words) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "data: first\n"
        assert shed.order(secrets=[]) == 1
        assert child.stdout.read() == "\n"
        assert child.wait() != 0
    wait_until(lambda: any(each.get("cut") for each in shed.net.decisions()[before:]))


FLOOD = """
import socket, ssl
address = socket.gethostbyname("api.example.com")
held = []
for number in range(1200):
    sock = socket.socket()
    sock.setblocking(False)
    try:
        sock.connect((address, 443))
    except BlockingIOError:
        pass
    held.append(sock)
sent = 0
for sock in held:
    sock.settimeout(5)
    try:
        sock.send(b"\\x16\\x03\\x01\\x02\\x00")  # the beginning of a ClientHello, and nothing more
        sent += 1
    except OSError:
        pass
print(sent > 1000)
"""


def test_a_flood_of_handshakes_ends_with_its_client(shed: Shed) -> None:
    """The next client is served, and the relay has not grown by much."""
    assert shed.python(FLOOD) == "True\n[0]"
    assert shed.curl("https://api.example.com/hello", "--retry", "5", "--retry-all-errors") == "hello\n[0]"
