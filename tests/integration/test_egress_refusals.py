"""What clients are told when they are refused: a sentence, and the command that would allow it, wherever that fits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from support.servers.netlab import Lab, lab

pytestmark = pytest.mark.root
ASK = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
sock.sendall(sys.argv[3].encode().decode("unicode_escape").encode("latin-1"))
data = b""
try:
    while part := sock.recv(65536):
        data += part
    print(data.decode("latin-1"))
except ConnectionResetError:
    print("reset")
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose shed may reach one name."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        made.rule({"allow": "good.example.com", "ports": [443]}, {"deny": "bad.example.com"})
        yield made


@pytest.mark.parametrize("start", ["GET", "PROPFIND", "MKCOL", "M-SEARCH"])
def test_http_on_an_odd_port_is_told_in_http(net: Lab, start: str) -> None:
    """Whatever its method is, as far as it is one that servers know."""
    said = net.python(ASK, "other.example.com", "8123", f"{start} / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    if start == "M-SEARCH":
        assert said == "reset\n"
        return
    head, _, body = said.partition("\n\n")
    assert head.startswith("HTTP/1.1 403 Forbidden\n")
    rule = '{"allow": "other.example.com", "ports": [8123]}'
    assert body.splitlines()[:3] == [
        "shed: a connection to other.example.com:8123 is not allowed: no rule allows it",
        f"to allow it, on the host: shed egress profile edit mine, with the rule {rule}",
        "on the host, see: shed egress log dev",
    ]


def test_no_command_is_named_where_none_helps(net: Lab) -> None:
    """Nor one that would tell a shed the address that a name has behind the host."""
    for host in ("bad.example.com", "169.254.169.254", "198.19.255.254"):
        said = net.python(ASK, host, "80", "GET / HTTP/1.1\\r\\n\\r\\n")
        assert "403 Forbidden" in said
        assert "to allow it" not in said
    net.names({"inside.example.com": ["10.9.8.7"]})
    net.rule({"allow": "*"})
    said = net.python(ASK, "inside.example.com", "80", "GET / HTTP/1.1\\r\\n\\r\\n")
    assert "10.9.8.7" not in said
    net.rule({"allow": "good.example.com", "ports": [443]}, {"deny": "bad.example.com"})


@pytest.mark.skipif(not shutil.which("ssh"), reason="needs OpenSSH's client")
def test_ssh_shows_the_sentence(net: Lab) -> None:
    """OpenSSH prints what the other side says when it disconnects."""
    done = net.run(
        "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-p", "2200", "git@other.example.com", "true",
    )  # fmt: skip
    assert done.returncode == 255
    assert "a connection to other.example.com:2200 is not allowed: no rule allows it" in done.stderr
    assert "shed egress profile edit mine" in done.stderr


@pytest.mark.parametrize("nonsense", ["\\x00\\x01\\x02", "HELO x\\r\\n", "SSH", "GET", "get / HTTP/1.1\\r\\n\\r\\n"])
def test_all_else_is_reset(net: Lab, nonsense: str) -> None:
    """Without an answer that nobody would understand."""
    assert net.python(ASK, "other.example.com", "9999", nonsense) == "reset\n"
