"""One request of a shed to a host for which TLS is opened: whether it may be made, and how it is sent.

Pure.  Whatever two programs might read differently is refused: what is sent is written anew from what was understood.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h11

from shed.egress.orders import Opening, Orders
from shed.egress.rules.limits import Limits
from shed.egress.rules.policy import normal_name
from shed.egress.secrets.secret import Secret
from shed.egress.tls.swap import Headers, Misplaced, Swap

HTTPS = 443
_FRAMES = {b"content-length", b"transfer-encoding"}
_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
"""What is said to the next program alone (RFC 9110, section 7.6.1)."""
_OVERRIDES = {
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url",
}  # fmt: skip
"""With these, servers take a request for another one."""
_COMPRESSIONS = {b"accept-encoding", b"sec-websocket-extensions"}
_NO_TRAILERS = _HOP | _FRAMES | {b"host", b"authorization", b"cookie", b"expect"}


class Refused(Exception):  # noqa: N818  it is a verdict
    """The request is not made; `status` and a sentence say why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Ready:
    """A request as it is sent."""

    head: h11.Request
    used: tuple[str, ...]
    """Names of the secrets that it has."""
    masked: frozenset[bytes]
    """What its answer must not have."""
    secrets: tuple[Secret, ...]
    """Those of the host."""


def prepare(request: h11.Request, name: str, port: int, orders: Orders, opening: Opening) -> Ready:
    """Return `request`, which came by a connection to `port` of the host `name`, as it is sent.  Raises `Refused`."""
    method, target = request.method.decode("ascii"), request.target.decode("ascii")
    names = [header for header, _ in request.headers]
    if method in {"CONNECT", "TRACE"}:
        raise Refused(403, f"{method} is never sent")
    if request.http_version not in {b"1.0", b"1.1"}:
        raise Refused(505, "it is not HTTP/1.1")
    if not target.startswith("/"):
        raise Refused(400, "the target of the request is not a path")
    if is_framed_twice(request.headers):
        raise Refused(400, "it has a Content-Length and a Transfer-Encoding")
    authority = name if port == HTTPS else f"{name}:{port}"
    for header, value in request.headers:
        if header == b"host" and not _is_host(value, name, port):
            raise Refused(403, f"its header Host does not name {authority}, to which the shed is connected")
    fitting = tuple(secret for secret in opening.secrets if secret.limits.fit(method, target))
    _check_limits(
        method,
        target,
        opening,
        limited=opening.is_limited and not _OVERRIDES.isdisjoint(name.replace(b"_", b"-") for name in names),
    )
    swap = Swap(fitting, [secret for secret in orders.secrets if secret not in fitting])
    path, mark, query = request.target.partition(b"?")
    try:
        headers = swap.headers(passed_on(request.headers.raw_items()))
        query = swap.query(query)
    except Misplaced as misplaced:
        raise Refused(403, str(misplaced)) from None
    if opening.secrets:  # an answer that is compressed could not be looked through
        headers = [header for header in headers if header[0].lower() not in _COMPRESSIONS]
        headers.append((b"Accept-Encoding", b"identity"))
    headers = [(b"Host", authority.encode()), *(header for header in headers if header[0].lower() != b"host")]
    headers += framing(request.headers)
    if _wants_websocket(request):
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    head = h11.Request(method=request.method, target=path + mark + query, headers=headers)
    values = {secret.value.encode() for secret in opening.secrets}
    return Ready(head, tuple(swap.used), frozenset(values | swap.sent), opening.secrets)


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return those of a head's headers that are for the program at the far end, without what frames the body."""
    known = list(headers)
    named = {
        word.strip().lower() for name, value in known if name.lower() == b"connection" for word in value.split(b",")
    }
    return [header for header in known if header[0].lower() not in _HOP | _FRAMES | named]


def framing(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return what says where a body ends: its length, or that it comes in chunks."""
    known = dict(headers)
    if b"transfer-encoding" in known:
        return [(b"Transfer-Encoding", b"chunked")]
    return [(b"Content-Length", known[b"content-length"])] if b"content-length" in known else []


def is_framed_twice(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Say whether two programs might find the end of the body at two places."""
    return {name for name, _ in headers} >= _FRAMES


def trailers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return those of the headers behind a body that mean nothing to the body or to who may see it."""
    return [header for header in headers if header[0] not in _NO_TRAILERS]


def _check_limits(method: str, target: str, opening: Opening, *, limited: bool) -> None:
    what = f"{method} {target.partition('?')[0][:200]}"
    if limited:
        raise Refused(403, "it asks the server to take it for another request than it is")
    if opening.limits is not None and not any(limits.fit(method, target) for limits in opening.limits):
        raise Refused(403, f"{what} is not one of: {_shown(opening.limits)}")
    if opening.secrets and not any(secret.limits.fit(method, target) for secret in opening.secrets):
        names = ", ".join(secret.name for secret in opening.secrets)
        limits = _shown(secret.limits for secret in opening.secrets)
        raise Refused(403, f"{what} is not one of the requests that the secret {names} is for: {limits}")


def _shown(limits: Iterable[Limits]) -> str:
    return "; ".join(map(str, limits))


def _is_host(value: bytes, name: str, port: int) -> bool:
    host, colon, digits = value.decode("latin-1").partition(":")
    try:
        return normal_name(host) == name and (digits or str(HTTPS)) == str(port) and bool(digits) is bool(colon)
    except ValueError:
        return False


def _wants_websocket(request: h11.Request) -> bool:
    known = dict(request.headers)
    return (
        (request.method, request.http_version) == (b"GET", b"1.1")
        and known.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in {word.strip() for word in known.get(b"connection", b"").lower().split(b",")}
    )
