"""The TCP port of a real server: who comes in, what each right allows, and what strangers cost.  The Unix socket stays
its user's.
"""

import http.client
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from shed.api.endpoints import ENDPOINTS
from shed.client.address import Address
from shed.client.sync.api import Api
from shed.errors import ConflictError, ForbiddenError, NotFoundError, UnauthorizedError, UsageError
from shed.server.audit import KNOWN
from shed.server.connections import MAX_PER_TOKEN, MAX_STRANGERS
from support.ports import free_port
from support.servers.running import Running
from support.servers.world import World


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that listens on TCP too, with one shed."""
    root = tmp_path_factory.mktemp("tcp")
    (root / "port").write_text(str(free_port()))
    running = Running(World(root))
    assert running.request("POST", "/api/sheds", '{"name": "dev"}')[0] == 201
    yield running
    running.world.kill_machines()
    running.end()


def port_of(server: Running) -> int:
    return int((server.world.paths.data.parent / "port").read_text())


def over_tcp(server: Running, method: str, target: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
    """Send one request to the TCP port and return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
    try:
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def owner(server: Running) -> Api:
    """Return a client of the Unix socket."""
    return Api(Address(path=str(server.socket)))


def with_token(server: Running, token: str | None) -> Api:
    """Return a client of the TCP port."""
    return Api(Address(host="127.0.0.1", port=port_of(server)), token=token)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/api/info", None),
        ("GET", "/api/sheds", None),
        ("POST", "/api/sheds", '{"name": "evil", "local_dir": "/root"}'),
        ("POST", "/api/sheds/dev/mounts", '{"add": ["/root:/data"]}'),
        ("DELETE", "/api/sheds/dev?force=true", None),
        ("GET", "/nowhere", None),
    ],
)
@pytest.mark.parametrize("token", [None, "Bearer ", "Bearer shed_guess", "Basic cm9vdDo=", "Bearer x\xff"])
def test_nothing_is_to_be_had_without_a_token(
    server: Running, method: str, target: str, body: str | None, token: str | None
) -> None:
    """A guest, and any user of the machine, could list sheds and make one with a folder of the host."""
    headers = {} if token is None else {"Authorization": token}
    status, answer = over_tcp(server, method, target, body, **headers)
    assert status == 401
    assert json.loads(answer)["error"]["code"] in {"UNAUTHORIZED", "TOKEN_INVALID"}
    assert server.request("GET", "/api/sheds/evil")[0] == 404
    assert server.request("GET", "/api/sheds/dev")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: localhost:{port}", 200),
        ("Host: 127.0.0.1:{port}", 200),
        ("Host: [::1]:{port}", 200),
        ("Host: evil.example:{port}", 403),
        ("Host: localhost.evil.example", 403),
        ("Host: localhost:{port}\r\nOrigin: https://evil.example", 403),
        ("Host: localhost:{port}\r\nOrigin: null", 403),
        ("Host: localhost:{port}\r\nSec-Fetch-Site: cross-site", 403),
    ],
)
def test_web_pages_cannot_use_the_port(server: Running, headers: str, status: int) -> None:
    """Neither from another origin, nor by a name that was rebound to 127.0.0.1, even if they knew the token."""
    lines = headers.format(port=port_of(server))
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=60) as client:
        head = (
            f"GET /api/info HTTP/1.1\r\n{lines}\r\nAuthorization: Bearer {server.secret()}\r\nConnection: close\r\n\r\n"
        )
        client.sendall(head.encode())
        with client.makefile("rb") as reader:
            answer = reader.read()
    assert int(answer.split()[1]) == status
    if status == 200:
        assert "data_dir" not in json.loads(answer.split(b"\r\n\r\n", 1)[1])


def test_the_port_cannot_stop_the_server(server: Running) -> None:
    """Not even with the server's own token."""
    assert over_tcp(server, "POST", "/api/server/stop", Authorization=f"Bearer {server.secret()}")[0] == 403
    assert server.request("GET", "/api/info")[0] == 200


def test_a_refusal_reaches_a_client_that_is_still_sending(server: Running) -> None:
    """The body is not waited for, nor does it reset the connection before the answer is read."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=60) as client:
        client.sendall(
            b"POST /api/sheds HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n" + b"x" * 300_000
        )
        with client.makefile("rb") as reader:
            assert reader.readline().startswith(b"HTTP/1.1 401")


def test_each_route_says_what_right_it_takes() -> None:
    """The table of rights is the promise: what sees is `read`, what runs is `use`, what leaves the sheds is `admin`."""
    rights = {f"{endpoint.method} {endpoint.path}": endpoint.right.word for endpoint in ENDPOINTS}
    admin = {name for name, right in rights.items() if right == "admin"}
    assert admin == {
        "POST /api/images/push", "POST /api/images/pull", "POST /api/snapshots/pull",
        "POST /api/snapshots/{snapshot}/push", "POST /api/images/tag", "POST /api/images/trust",
        "POST /api/images/verify", "POST /api/images/prune",
        "DELETE /api/images", "POST /api/system/prune", "POST /api/server/stop",
        "GET /api/tokens", "POST /api/tokens", "DELETE /api/tokens/{token}",
        "POST /api/egress/profiles/{profile}", "DELETE /api/egress/profiles/{profile}", "POST /api/sheds/{name}/egress",
        "POST /api/sheds/{name}/ports", "POST /api/sheds/{name}/mounts",
        "POST /api/secrets/{secret}", "DELETE /api/secrets/{secret}", "POST /api/sheds/{name}/secrets",
        "GET /api/ssh-keys", "POST /api/ssh-keys", "DELETE /api/ssh-keys/{fingerprint}",
    }  # fmt: skip
    readers = {name for name, right in rights.items() if right == "read"}
    assert all(name.startswith("GET ") for name in readers)
    assert not any(
        word in name
        for name in readers
        for word in ("exec", "connect", "logs", "sessions", "tokens", "workspace", "keys")
    )


def test_rights_by_token(server: Running) -> None:
    """Each token does what its right allows, and no more; a folder of the host, and the kernel of an image, are for
    admins alone.
    """
    mine = owner(server)
    secrets = {right: mine.create_token(f"t-{right}", right=right)[1] for right in ("read", "use", "admin")}
    assert [shed["name"] for shed in with_token(server, secrets["read"]).sheds()] == ["dev"]
    calls: tuple[Callable[[Api], object], ...] = (
        lambda client: client.create("sneaky"),
        lambda client: client.stop("dev"),
        lambda client: client.logs("dev"),
        lambda client: client.connect("dev", 7),
        lambda client: client.tokens(),
    )
    for call in calls:
        with pytest.raises(ForbiddenError) as caught:
            call(with_token(server, secrets["read"]))
        assert caught.value.code == "FORBIDDEN"
    user = with_token(server, secrets["use"])
    with pytest.raises(ForbiddenError, match="a folder of the host needs the right 'admin'"):
        user.create("sneaky", local_dir="/etc")
    for place in ("/etc/shadow", "/etc", "/nowhere-at-all"):  # what there is on the host is nobody else's business
        with pytest.raises(ForbiddenError, match="a folder of the host needs the right 'admin'"):
            user.create("sneaky", mounts=[f"{place}:/data"], dotfiles="https://git.example.com/a")
        with pytest.raises(ForbiddenError, match="a folder of the host needs the right 'admin'"):
            user.create("sneaky", local_dir=place, repo="https://git.example.com/a")
    for trusting in (
        lambda: user.create("sneaky", trust_kernel=True),
        lambda: user.create("sneaky", ports=["7"]),
        lambda: user.create("sneaky", host_ports=["5432"]),
        lambda: user.change_ports("dev", publish=["7"]),
        lambda: user.create("sneaky", mounts=["/etc:/data"]),
        lambda: user.change_mounts("dev", add=["/etc:/data"]),
        lambda: user.change_mounts("dev", remove=["/data"]),
        lambda: user.pull_image("registry.example/evil:1", trust_kernel=True),
        lambda: user.trust_image("evil"),
    ):
        with pytest.raises(ForbiddenError, match="needs the right 'admin'"):
            trusting()
    with pytest.raises(ForbiddenError, match="neither in the store nor in the configuration"):
        user.create("sneaky", image="registry.example/evil:1")
    with pytest.raises(ForbiddenError, match="a secret needs the right 'admin'"):
        user.create("sneaky", secrets=["key"])
    with pytest.raises(ForbiddenError, match="force needs"):
        user.create("sneaky", force=True)
    with pytest.raises(ForbiddenError, match="force needs"):
        user.start("dev", force=True)
    with pytest.raises(ForbiddenError):
        user.pull_image("registry.example/evil:1", tag="base")
    with pytest.raises(ForbiddenError):
        user.verify_image("base")
    with pytest.raises(ForbiddenError):
        user.create_token("more", right="admin")
    with pytest.raises(ForbiddenError):
        user.clean([], until=0)
    user.connect("dev", 7).close()
    assert "sneaky" not in [shed["name"] for shed in mine.sheds()]
    assert with_token(server, secrets["admin"]).tokens()
    for right in secrets:
        mine.revoke_token(f"t-{right}")


def test_a_token_can_be_revoked_and_can_end(server: Running) -> None:
    """Its connections end with it; another of the same name is refused while it is there."""
    mine = owner(server)
    _, secret = mine.create_token("ci")
    with pytest.raises(ConflictError) as caught:
        mine.create_token("ci")
    assert caught.value.code == "TOKEN_EXISTS"
    client = with_token(server, secret)
    with client.connect("dev", 7) as echo:
        echo.settimeout(60)
        mine.revoke_token("ci")
        with pytest.raises(ConnectionResetError):
            echo.recv(1)
    with pytest.raises(UnauthorizedError):
        client.sheds()
    with pytest.raises(NotFoundError):
        mine.revoke_token("ci")
    _, secret = mine.create_token("short", expires_in=0.001)
    with pytest.raises(UnauthorizedError):
        with_token(server, secret).sheds()
    _, secret = mine.create_token("soon", expires_in=6)
    with with_token(server, secret).connect("dev", 7) as echo:
        echo.settimeout(60)
        with pytest.raises(ConnectionResetError):  # when its time is over, and not before
            echo.recv(1)
    for wrong in ("local", "", "a b", "../x"):
        with pytest.raises(UsageError):
            mine.create_token(wrong)


def test_what_is_kept_of_tokens_is_private_and_has_no_secret(server: Running) -> None:
    """The files are 0600; hashes alone are kept, but for the server's own token, which is for programs of the same
    user.
    """
    secret = owner(server).create_token("kept")[1]
    data = server.world.paths.data
    assert secret not in (data / "tokens.json").read_text()
    assert secret not in json.dumps(owner(server).tokens())
    for path in (
        data / "tokens.json",
        data / "token",
        server.world.paths.run / "tokens",
        server.world.paths.logs / "audit.log",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(secret in record or server.secret() in record for record in map(json.dumps, server.audited()))


def test_the_local_client_finds_the_servers_own_token(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, for the user who runs the server, nothing needs to be set."""
    monkeypatch.setenv("SHED_RUNTIME_DIR", str(server.world.paths.run))
    monkeypatch.delenv("SHED_TOKEN", raising=False)
    assert [shed["name"] for shed in with_token(server, None).sheds()] == ["dev"]


@pytest.mark.root
def test_another_user_of_the_machine_stays_outside(server: Running) -> None:
    """Neither the port nor the socket nor the files give `nobody` anything."""
    program = (
        "import encodings.idna, os, socket\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"client = socket.create_connection(('127.0.0.1', {port_of(server)}))\n"
        "client.sendall(b'GET /api/sheds HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(client.makefile('rb').readline().split()[1].decode())\n"
        f"for path in ({str(server.world.paths.data / 'token')!r}, {str(server.world.paths.run / 'tokens')!r}):\n"
        "    try: print(open(path).read())\n"
        "    except PermissionError: print('denied')\n"
        f"try: socket.socket(socket.AF_UNIX).connect({str(server.socket)!r})\n"
        "except PermissionError: print('denied')\n"
    )
    if os.geteuid():
        pytest.skip("only root can become another user")
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["401", "denied", "denied", "denied"], found.stderr


def test_silent_strangers_make_way(server: Running) -> None:
    """More connections than strangers may have: the oldest are hung up on, and who shows a token is served all the
    while.
    """
    silent = [socket.create_connection(("127.0.0.1", port_of(server)), timeout=60) for _ in range(MAX_STRANGERS + 20)]
    try:
        for client in silent[:20]:
            assert client.recv(1) == b""
        assert with_token(server, server.secret()).info()["version"]
        assert server.request("GET", "/api/info")[0] == 200
    finally:
        for client in silent:
            client.close()


@pytest.mark.root
def test_a_flood_of_another_users_takes_nothing_from_this_one(server: Running) -> None:
    """Who has most strangers makes way for the next: a connection of ours that has not spoken yet is still there behind
    300 of theirs.
    """
    if os.geteuid():
        pytest.skip("only root can become another user")
    program = (
        "import encodings.idna, os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"held = [socket.create_connection(('127.0.0.1', {port_of(server)})) for _ in range(300)]\n"
        "print(len(held), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=60) as ours:
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as flood:
            assert flood.stdout is not None
            assert flood.stdout.readline() == "300\n"
            ours.sendall(
                f"GET /api/info HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.secret()}\r\n\r\n".encode()
            )
            with ours.makefile("rb") as reader:
                assert reader.readline().startswith(b"HTTP/1.1 200")
            flood.communicate("")


def test_one_token_cannot_take_all_connections(server: Running) -> None:
    """Its holder is told; another token is served."""
    mine = owner(server)
    _, secret = mine.create_token("greedy", right="read")
    held = []
    try:
        refused = 0
        for _ in range(MAX_PER_TOKEN + 5):
            client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
            client.request("GET", "/api/info", headers={"Authorization": f"Bearer {secret}"})
            answer = client.getresponse()
            refused += answer.status == 503
            assert answer.read()
            held.append(client)
        assert refused == 5
        assert with_token(server, server.secret()).info()["version"]
    finally:
        for client in held:
            client.close()
        mine.revoke_token("greedy")


def test_the_audit_log_says_who_did_what(server: Running) -> None:
    """User and process of the Unix socket, the token's name on TCP, what the client is, the shed, and how it ended."""
    mine = owner(server)
    _, secret = mine.create_token("auditor", right="use")
    client = with_token(server, secret)
    client.create("noted")
    client.address.client = "mcp"
    client.connect("noted", 7).close()
    client.address.client = "a program) that (lies"
    client.delete("noted", force=True)
    with pytest.raises(NotFoundError):
        client.shed("noted")
    records = server.audited()
    by_token = [record for record in records if record["who"].get("name") == "auditor"]
    assert [(record["action"], record["shed"], record["status"], record.get("code")) for record in by_token] == [
        ("POST /api/sheds", "noted", 201, None),
        ("GET /api/sheds/{name}/connect/{port}", "noted", 101, None),
        ("DELETE /api/sheds/{name}", "noted", 200, None),
        ("GET /api/sheds/{name}", "noted", 404, "SHED_NOT_FOUND"),
    ]
    assert [record["who"].get("client") for record in by_token] == [None, "mcp", None, None]
    made = next(record for record in reversed(records) if record["action"] == "POST /api/tokens")
    assert made["who"]["kind"] == "user"
    assert (made["who"]["uid"], made["who"]["pid"]) == (os.geteuid(), os.getpid())


def test_a_token_cannot_push_out_the_log(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets so many lines a minute, and a count; what the owner does is written whatever it does."""
    mine = owner(server)
    _, secret = mine.create_token("noisy", right="read")
    before = len(server.audited())
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
    for _ in range(2 * KNOWN + 100):  # more than two minutes allow, one of which may begin in between
        connection.request("GET", "/api/nowhere", headers={"Authorization": f"Bearer {secret}"})
        connection.getresponse().read()
    connection.close()
    mine.revoke_token("noisy")
    records = server.audited()[before:]
    assert sum(record["who"].get("name") == "noisy" for record in records) <= 2 * KNOWN
    assert records[-1]["action"] == "DELETE /api/tokens/{token}"


def test_strangers_cannot_push_out_the_log(server: Running) -> None:
    """A guest that asks a thousand times gets its twenty lines a minute."""
    before = len(server.audited())
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
    for _ in range(200):
        connection.request("GET", "/api/sheds")
        connection.getresponse().read()
        connection.close()
    assert len(server.audited()) - before <= 2 * 20 + 2  # a minute may begin in between
