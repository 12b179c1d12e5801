"""The requests about who may use a server: tokens and SSH keys."""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.aio.requests import request
from shed.client.messages import object_of, objects_of
from shed.names import check_token_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SSH_KEYS = "/api/ssh-keys"


class AsyncAccessApi:
    """The part of `AsyncApi` that is about tokens of the TCP port and keys of the SSH front."""

    address: Address

    async def create_token(
        self, name: str, *, right: str = "use", expires_in: float | None = None
    ) -> tuple[dict[str, Any], str]:
        """Make a token for the server's TCP port.

        Return what the server says of it, and its secret, which the server does not know.  `right` is ``read``, ``use``
        or ``admin``; `expires_in` is in seconds.
        """
        import hashlib  # noqa: PLC0415  few make tokens
        import secrets  # noqa: PLC0415

        secret = f"shed_{secrets.token_urlsafe(32)}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        body = {"name": check_token_name(name), "right": right, "sha256": digest, "expires_in": expires_in}
        return object_of(await request(self.address, "POST", "/api/tokens", body=body)), secret

    async def tokens(self) -> list[dict[str, Any]]:
        """Return the server's tokens, without their secrets."""
        return objects_of(await request(self.address, "GET", "/api/tokens"), "tokens")

    async def revoke_token(self, name: str) -> None:
        """Make a token invalid."""
        await request(self.address, "DELETE", f"/api/tokens/{check_token_name(name)}")

    async def ssh_keys(self) -> list[dict[str, Any]]:
        """Return the keys that the server lets in by SSH, without those of its configuration."""
        return objects_of(await request(self.address, "GET", _SSH_KEYS), "keys")

    async def add_ssh_key(self, line: str) -> str:
        """Have the server let in a public key; return its fingerprint."""
        answer = object_of(await request(self.address, "POST", _SSH_KEYS, body={"key": line}))
        return str(answer.get("fingerprint", ""))

    async def remove_ssh_key(self, fingerprint: str) -> None:
        """Have the server let in a key no more, from the next connection on."""
        await request(self.address, "DELETE", f"{_SSH_KEYS}/{messages.quoted(fingerprint)}")
