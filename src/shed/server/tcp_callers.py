"""Who comes in by TCP: clients that show a token, and are no web page.

Everybody on this machine reaches the port, and what they send is read only once they are known.
"""

from __future__ import annotations

from shed.errors import ForbiddenError, ShedError, UnauthorizedError
from shed.server.audit import Audit
from shed.server.caller import Caller
from shed.server.tokens import Tokens

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SCHEME = "bearer"


class TcpCallers:
    """Knows the callers of the TCP port by their `tokens`, and tells `audit` who was refused."""

    def __init__(self, tokens: Tokens, audit: Audit) -> None:
        self._tokens = tokens
        self._audit = audit

    def admit(self, headers: dict[str, str]) -> Caller:
        """Return who sent a request with these headers.

        Raises `ForbiddenError` for a web page, else `UnauthorizedError`.
        """
        try:
            _check_origin(headers)
            return self._caller(headers)
        except ShedError as error:
            self._audit.stranger("tcp", "request", error)
            raise

    def _caller(self, headers: dict[str, str]) -> Caller:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() != _SCHEME or not secret.strip():
            hint = (
                "on its machine: shed token create NAME; then: shed server add URL --token-file FILE, or set SHED_TOKEN"
            )
            raise UnauthorizedError("this server asks for a token on its TCP port", hint=hint)
        caller = self._tokens.caller(secret.strip())
        if caller is None:
            hint = "it was revoked, its time is over, or it is another server's: make one with shed token create"
            raise UnauthorizedError("the token is not one of this server's", hint=hint, code="TOKEN_INVALID")
        return caller


def _check_origin(headers: dict[str, str]) -> None:
    """Refuse what a web page could make a browser send to the loopback port.

    It shows by the page's origin, or by a rebound host name.
    """
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() not in LOOPBACK_NAMES:
        raise ForbiddenError(f"this server is not called {host[:100]!r}", hint="use localhost or 127.0.0.1")
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise ForbiddenError("requests from web pages are refused", hint="use the shed command")
