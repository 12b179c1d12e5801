"""A guest of a lab that has secrets, and the servers that they are for."""

from __future__ import annotations

import json
import sys
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shed.egress.secrets.authority import Authority
from shed.egress.secrets.signing import make_authority, make_leaf, sign_leaf
from support.servers import tlsorigin
from support.servers.netlab import Lab
from support.servers.tlsorigin import PASSWORD

PUBLIC = "93.184.216.34"
PLACEHOLDER = "shed-placeholder-of-the-origin-0001"
OTHER = "shed-placeholder-of-another-0002"
OTHER_VALUE = "value-of-another-secret-xyz"
NAMES = ["api.example.com", "other.example.com", "plain.example.com"]
TRUST = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "PIP_CERT")
"""Where programs are told whom to trust."""
EXPIRED, WRONG, UNKNOWN = 8441, 8442, 8443
"""Ports at which the server has a certificate that is not valid."""

_MAIL = """
import contextlib, socket
listener = socket.create_server(("0.0.0.0", 25))
print("ready", flush=True)
while True:
    with contextlib.suppress(OSError), listener.accept()[0] as client:
        client.sendall(b"220 hello\\r\\n")
        client.recv(1)
"""


class Shed:
    """A guest with a secret for api.example.com, and another one for other.example.com."""

    def __init__(self, net: Lab) -> None:
        self.net = net
        self.origin = make_authority("origin")
        self.authority = make_authority("dev")
        self.leaf = make_leaf(self.authority, "api.example.com").to_json()
        self.folder = net.folder / "origin"
        self.folder.mkdir()
        self.bundle = net.folder / "authority.pem"
        self.bundle.write_text(self.authority.certificate)
        net.names({name: [PUBLIC] for name in NAMES})
        for port, authority, name, days in (
            (443, self.origin, "*.example.com", 10), (8080, self.origin, "*.example.com", 10),
            (EXPIRED, self.origin, "*.example.com", -1), (WRONG, self.origin, "example.org", 10),
            (UNKNOWN, make_authority("unknown"), "*.example.com", 10),
        ):  # fmt: skip
            file = net.folder / f"{port}.pem"
            file.write_text(certificate(authority, name, days))
            net.start_in_internet(sys.executable, "-u", tlsorigin.__file__, str(self.folder), str(port), str(file))
        net.start_in_internet(sys.executable, "-c", _MAIL)
        self.order()

    def order(self, *rules: dict[str, Any], secrets: list[dict[str, Any]] | None = None, **changes: Any) -> int:
        """Have the shed be ruled so from now on; without rules, all names are allowed.  Return what that has cut."""
        self.secrets = self.known() if secrets is None else secrets
        orders = {
            "profiles": {"mine": {"rules": list(rules) or [{"allow": "*.example.com"}], "log": "all"}},
            "secrets": self.secrets,
            "authority": self.authority.to_json(),
            "leaves": [self.leaf],
            "extra_authorities": [self.origin.certificate],
            **changes,
        }
        answer = self.net.do({"do": "rule", "shed": "dev", "orders": orders})
        assert answer.get("ok"), answer
        return int(answer["cut"])

    @staticmethod
    def known(**changes: Any) -> list[dict[str, Any]]:
        """Return the two secrets, the first one changed."""
        first = {"name": "API", "placeholder": PLACEHOLDER, "value": PASSWORD, "hosts": ["api.example.com"], **changes}
        other = {"name": "OTHER", "placeholder": OTHER, "value": OTHER_VALUE, "hosts": ["other.example.com"]}
        return [first, other]

    def run(self, *words: str, seconds: float = 120) -> str:
        """Run a command in the guest, which trusts the shed's authority; return all that it prints and its status."""
        trust = [f"{name}={self.bundle}" for name in TRUST]
        done = self.net.run("env", "HOME=/nonexistent", *trust, *words, seconds=seconds)
        return f"{done.stdout}{done.stderr}[{done.returncode}]"

    def curl(self, *words: str) -> str:
        """Return what curl gets."""
        return self.run("curl", "-sS", *words)

    def python(self, program: str, *words: str) -> str:
        """Run a Python program in the guest, and return what it prints."""
        return self.run(sys.executable, "-c", program, *words)

    def requests(self) -> list[dict[str, Any]]:
        """Return what the server was sent."""
        file = self.folder / "requests"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def header(self, name: str) -> list[str]:
        """Return what the last request has of a header."""
        return [value for key, value in self.requests()[-1]["headers"] if key.lower() == name.lower()]


def certificate(authority: Authority, name: str, days: int) -> str:
    """Return a key and a certificate for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pem + sign_leaf(authority, name, key, days)
