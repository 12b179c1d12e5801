"""A host that reaches the outside by a proxy alone, a real squid: what a shed gets through it, and what it does not."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.netlab import TALK, Lab, lab
from support.servers.squid import ADDRESS, PASSWORD, PORT, USER, Squid, squid

pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("squid") is None, reason="squid is not installed")]
EVERYTHING: tuple[dict[str, object], ...] = (
    {"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "100.64.0.0/10"}
)  # fmt: skip
ECHO = """
import socket, threading
def serve(client):
    with client:
        while data := client.recv(65536):
            client.sendall(data)
listener = socket.create_server(("0.0.0.0", 443), backlog=512)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
HTTP_ECHO = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{self.path} {self.headers['Host']} {len(body)} {self.headers.get('Proxy-Authorization')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"""
FETCH = """
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
        print(answer.status, answer.read().decode().strip())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode().strip())
except OSError as error:
    print("no", error)
"""
KEPT = """
import http.client, sys
connection = http.client.HTTPConnection("www.example.com", timeout=30)
for path in ("/hello", "/none", "/hello"):
    connection.request("GET", path)
    answer = connection.getresponse()
    print(answer.status, len(answer.read()) > 3)
    assert connection.sock is not None or answer.status
"""
SAY = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 80), timeout=30)
sock.sendall(sys.argv[2].encode().decode("unicode_escape").encode())
got = b""
try:
    while part := sock.recv(65536):
        got += part
except ConnectionResetError:
    got += b"reset"
print(got.decode())
"""
ASK = """
import socket, struct, sys
labels = b"".join(bytes([len(label)]) + label.encode() for label in sys.argv[1].split("."))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(30)
udp.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!2H", 1, 1), ("10.0.2.2", 53))
print(socket.inet_ntoa(udp.recv(512)[-4:]))
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose internet has an echo on port 443, too."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        made.start_in_internet(sys.executable, "-c", ECHO)
        yield made


@pytest.fixture(scope="module")
def proxy(net: Lab) -> Iterator[Squid]:
    """A squid that asks for a password."""
    with squid(net, auth=True) as made:
        yield made


def order(
    net: Lab, *rules: dict[str, object], password: str = PASSWORD, around: tuple[str, ...] = (), host: str = ADDRESS
) -> None:
    """Rule the shed by `rules`, with squid as the proxy of its host."""
    described = {
        "host": host,
        "port": PORT,
        "credentials": base64.b64encode(f"{USER}:{password}".encode()).decode() if password else "",
        "no_proxy": list(around),
    }
    orders = {"profiles": {"mine": {"rules": list(rules), "log": "all"}}, "proxy": described}
    assert net.do({"do": "rule", "shed": "dev", "orders": orders})["ok"]


def fetch(net: Lab, url: str) -> str:
    """Return what a client in the guest says of `url`."""
    return net.python(FETCH, url).strip()


def test_the_host_has_no_other_way_out(net: Lab, proxy: Squid) -> None:
    """Without the proxy a shed reaches nothing: what follows shows that the proxy was used."""
    net.names({"www.example.com": ["93.184.216.34"]})
    net.rule({"allow": "*"})
    assert fetch(net, "http://www.example.com/hello").startswith("no ")
    net.names({})


def test_plain_http_goes_through_in_the_form_that_a_proxy_expects(net: Lab, proxy: Squid) -> None:
    """By a name that only the proxy knows; squid refuses CONNECT to port 80."""
    order(net, {"allow": "www.example.com"})
    assert fetch(net, "http://www.example.com/hello") == "200 hello"
    assert proxy.requests()[-1] == "GET http://www.example.com/hello"
    last = net.decisions()[-1]
    assert (last["name"], last["proxy"], last["rule"]) == (
        "www.example.com", f"{ADDRESS}:{PORT}", "mine: allow www.example.com",
    )  # fmt: skip
    assert last["received"] > 0
    assert fetch(net, "http://other.example.com/hello").startswith("403 shed: a connection to other.example.com:80")


def test_a_connection_is_kept_for_more_requests(net: Lab, proxy: Squid) -> None:
    """Each is sent on as a request of its own, those at once, too."""
    order(net, {"allow": "www.example.com"})
    assert net.python(KEPT).split() == ["200", "True", "404", "True", "200", "True"]
    two = "GET /hello HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n"
    answers = net.python(
        SAY, "www.example.com", two + two.replace("\\r\\n\\r\\n", "\\r\\nConnection: close\\r\\n\\r\\n")
    )
    assert answers.count("hello") == 2


@pytest.mark.parametrize("kind", ["length", "chunks"])
def test_bodies_go_through_and_the_password_does_not(net: Lab, proxy: Squid, kind: str) -> None:
    """Also on another port, when squid has refused CONNECT there; the proxy's password stays with the proxy."""
    server = net.start_in_internet(sys.executable, "-u", "-c", HTTP_ECHO)
    order(net, {"allow": "www.example.com"})
    program = (
        "import http.client, sys\n"
        "connection = http.client.HTTPConnection('www.example.com', 8080, timeout=30)\n"
        "body = b'x' * 300_000 if sys.argv[1] == 'length' else iter([b'x' * 100_000] * 3)\n"
        "connection.request('POST', '/there', body, encode_chunked=sys.argv[1] != 'length', "
        "headers={} if sys.argv[1] == 'length' else {'Transfer-Encoding': 'chunked'})\n"
        "print(connection.getresponse().read().decode())\n"
    )
    assert net.python(program, kind).strip() == "/there www.example.com:8080 300000 None"
    server.kill()
    server.wait()


def test_other_connections_go_through_by_connect(net: Lab, proxy: Squid) -> None:
    """Bytes of both directions arrive as they are, and each direction has its own end."""
    order(net, {"allow": "echo.example.com"})
    assert net.python(TALK, "echo.example.com", "443") == "all of it\n"
    assert proxy.requests()[-1] == "CONNECT echo.example.com:443"
    order(net, {"allow": "93.184.0.0/16"})
    assert net.python(TALK, "93.184.216.34", "443") == "all of it\n"
    assert proxy.requests()[-1] == "CONNECT 93.184.216.34:443"


def test_what_the_proxy_refuses_is_told_in_the_log(net: Lab, proxy: Squid) -> None:
    """A port that it does not allow, and credentials that it does not take: never the credentials themselves."""
    order(net, {"allow": "*"})
    assert fetch(net, "https://www.example.com:7/").startswith("no ")
    assert net.decisions()[-1]["error"] == f"the proxy {ADDRESS}:{PORT} refuses: 403 Forbidden"
    for password in ("wrong-password", ""):
        order(net, {"allow": "*"}, password=password)
        assert fetch(net, "https://www.example.com/").startswith("no ")
        told = f"the proxy {ADDRESS}:{PORT} refuses: 407 Proxy Authentication Required"
        assert net.decisions()[-1]["error"] == told
        assert fetch(net, "http://www.example.com/hello").startswith("407 ")
    logs = "".join(path.read_text() for path in Path(net.folder).glob("*.log*"))
    assert PASSWORD not in logs
    assert "wrong-password" not in logs


def test_a_proxy_that_is_not_there_is_told(net: Lab) -> None:
    """An HTTP client gets a sentence, others are reset."""
    order(net, {"allow": "*"}, host="100.127.0.1")
    assert fetch(net, "http://www.example.com/hello").startswith(f"502 shed: the proxy 100.127.0.1:{PORT} cannot be")
    assert fetch(net, "https://www.example.com/hello").startswith("no ")
    assert "Connection refused" in net.decisions()[-1]["error"]


def test_the_guard_list_holds_for_what_the_host_knows(net: Lab, proxy: Squid) -> None:
    """Whatever the rules allow: addresses, and names that the host finds to stand for one."""
    net.names({"inside.example.com": ["169.254.169.254"], "lan.example.com": ["10.1.2.3"], "mixed.example.com": [
        "93.184.216.34", "127.0.0.1"]})  # fmt: skip
    order(net, *EVERYTHING)
    before = proxy.requests()
    for there in (
        "127.0.0.1", "169.254.169.254", "10.1.2.3", "100.127.0.1", "inside.example.com", "lan.example.com",
        "mixed.example.com",
    ):  # fmt: skip
        assert fetch(net, f"http://{there}/hello").split()[0] in {"403", "no"}, there
    for name in ("localhost", "x.localhost"):  # asked of our name service: a guest's resolver answers these itself
        address = net.python(ASK, name).strip()
        assert fetch(net, f"http://{address}/hello").startswith(f"403 shed: a connection to {name}:80"), name
    assert proxy.requests() == before
    net.names({})


def test_what_only_the_proxy_knows_is_the_proxys_to_guard(net: Lab, proxy: Squid) -> None:
    """A name that stands for its own loopback is refused by squid as Debian sets it up."""
    order(net, *EVERYTHING)
    assert fetch(net, "http://evil.example.com/").startswith("403 ")
    assert "evil.example.com" in proxy.requests()[-1]


def test_the_proxy_itself_is_not_reached(net: Lab, proxy: Squid) -> None:
    """By which a shed would get wherever it lets the host: neither by its address nor by a name, not through itself."""
    net.names({"proxy.example.com": [ADDRESS], "alias.example.com": [ADDRESS]})
    for host in (ADDRESS, "proxy.example.com"):
        order(net, *EVERYTHING, host=host, around=("alias.example.com",))
        before = proxy.requests()
        for there in (ADDRESS, "proxy.example.com", "alias.example.com"):
            assert fetch(net, f"http://{there}:{PORT}/").startswith("403 shed: a connection to"), there
        assert proxy.requests() == before
    assert net.decisions()[-1]["rule"].startswith("it is the proxy of the host")
    net.names({})


def test_a_request_for_another_host_is_not_sent(net: Lab, proxy: Squid) -> None:
    """The rules were asked about the name that is connected, so a request names that, or is refused."""
    order(net, {"allow": "www.example.com"})
    before = proxy.requests()
    for request in (
        "GET / HTTP/1.1\\r\\nHost: evil.example.com\\r\\n\\r\\n",
        "GET http://evil.example.com/ HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n",
        "CONNECT evil.example.com:443 HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\nHost: www.example.com:8080\\r\\n\\r\\n",
        "POST / HTTP/1.1\\r\\nHost: www.example.com\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n",
    ):
        assert net.python(SAY, "www.example.com", request).split()[1] in {"400", "403"}, request
    assert proxy.requests() == before
    refused = [entry for entry in net.decisions() if not entry["allowed"] and entry.get("status") == 403]
    assert "Host does not name www.example.com" in refused[-1]["rule"]
    old = net.python(SAY, "www.example.com", "GET /hello HTTP/1.0\\r\\nProxy-Authorization: x\\r\\n\\r\\n")
    assert old.endswith("hello\n\n")


def test_what_no_proxy_names_is_dialled_directly(net: Lab, proxy: Squid) -> None:
    """The host reaches its own network; the name is looked up on the host then."""
    net.names({"near.corp.example": [ADDRESS]})
    order(net, *EVERYTHING, around=("corp.example",))
    before = proxy.requests()
    assert fetch(net, "http://near.corp.example/hello") == "200 hello"
    assert "proxy" not in net.decisions()[-1]
    assert proxy.requests() == before
    net.names({})


def test_apt_works(net: Lab, proxy: Squid, tmp_path: Path) -> None:
    """As it comes with Debian, by http and without any setting for a proxy."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("not a Debian")
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: shed-test\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.com>\nDescription: a test\n"
    )
    repository = net.folder / "web/debian"
    repository.mkdir()
    subprocess.run(["dpkg-deb", "-b", package, repository / "shed-test.deb"], check=True, capture_output=True)
    content = (repository / "shed-test.deb").read_bytes()
    described = f"Filename: ./shed-test.deb\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    (repository / "Packages").write_text((package / "DEBIAN/control").read_text() + described)
    lists = tmp_path / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (lists / name).mkdir(parents=True)
    (lists / "sources.list").write_text("deb [trusted=yes] http://deb.example.com/debian ./\n")
    (lists / "status").touch()
    options = [
        f"-oDir::State={lists}/state", f"-oDir::State::status={lists}/status", f"-oDir::Cache={lists}/cache",
        f"-oDir::Etc::sourcelist={lists}/sources.list", "-oDir::Etc::sourceparts=/dev/null",
        "-oDir::Etc::main=/dev/null",
        "-oDir::Etc::parts=/dev/null", "-oAPT::Sandbox::User=root", "-oAcquire::Retries=0",
    ]  # fmt: skip
    order(net, {"allow": "deb.example.com", "ports": [80]})
    done = net.run("apt-get", *options, "update")
    assert done.returncode == 0, done.stdout + done.stderr
    done = net.run("sh", "-c", f"cd {tmp_path} && apt-get {' '.join(options)} download shed-test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("shed-test_1_all.deb"))
