"""HTTP to registries, and where they redirect to: plain HTTP or TLS, redirects, retries.

A registry on this machine may speak plain HTTP or TLS, and is asked;
`docs/decisions/0016-registries-on-this-machine.md` says how. An Authorization header never follows a redirect to
another place.  Proxies come from the environment, and so do the certificates that are trusted (``SSL_CERT_FILE``).
"""

from __future__ import annotations

import email.utils
import ssl
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, Protocol, Self, TypeVar, cast
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from shed.errors import RegistryError, UnavailableError
from shed.oci.registry.connections import CHUNK, Connections, SlowError
from shed.oci.registry.encoding import Gunzip, is_gzipped
from shed.oci.registry.errors import WAITS, TransientError, refused, retried
from shed.oci.registry.reference import is_loopback, split_host
from shed.untrusted import number, told
from shed.version import VERSION

_MAX_ERROR = 1 << 16
_MAX_REDIRECTS = 8
WRONG = "the registry, or a proxy before it, is set up wrongly"
"""A hint."""
_HEADERS = {"User-Agent": f"shed/{VERSION}", "Accept-Encoding": "identity"}
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_T = TypeVar("_T")


class Readable(Protocol):
    """A file to read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


class Body(Protocol):
    """What is sent with a request."""

    size: int

    def open(self) -> Readable:
        """Return the bytes, from the start: they are read again for each try."""
        ...


class Answer:
    """A response whose body is read by whoever asked; leaving the block ends the connection unless all was read."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        """Where it came from, after redirects."""
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def read(self, limit: int) -> bytes:
        """Return the body, or its first `limit` + 1 bytes.  Raises `TransientError` when it is cut."""
        return b"".join(self.chunks(limit + 1))

    @property
    def gzipped(self) -> bool:
        """Whether the body was gzipped on its way.  Raises `RegistryError` for another encoding."""
        return is_gzipped(self.headers, told(urlsplit(self.url).netloc, 100))

    def chunks(self, limit: int, *, as_sent: bool = False) -> Iterator[bytes]:
        """Yield the body as it comes, at most `limit` bytes, unpacked unless it is wanted `as_sent`.

        Raises `TransientError` when it is cut, and `RegistryError`.
        """
        unpack = None if as_sent or not self.gzipped else Gunzip()
        while limit > 0:
            try:
                data = self._response.read(CHUNK if unpack else min(CHUNK, limit))
            except (HTTPError, OSError) as error:
                raise TransientError(_unreachable(self.url, error)) from None
            if not data:
                if unpack and not unpack.ended:
                    raise TransientError(_unreachable(self.url, ProtocolError("cut")))
                self._response.release_conn()
                return
            try:
                for piece in unpack.feed(data, min(CHUNK, limit)) if unpack else (data,):
                    limit -= len(piece)
                    yield piece
                    if limit <= 0:
                        break
            except zlib.error:
                raise TransientError(_unreachable(self.url, ProtocolError("damaged"))) from None


class Transport:
    """Connections to the registry `host`, without encryption when it is `insecure`, and to others.

    Usable by several threads.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool = False,
        private_hosts: Collection[str] = (),
        waits: Sequence[float] = WAITS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._host = host
        self._insecure = insecure
        self._waits = waits
        self._sleep = sleep
        self._base = ""
        self._connections = Connections(host, private_hosts)
        self.abort = self._connections.abort
        self.close = self._connections.close

    def plain_allowed(self, authority: str) -> bool:
        """Tell whether ``host[:port]`` may be spoken to without encryption.

        What is on this machine, if the registry is there, too; and a registry that the user says so of.
        """
        here = is_loopback(split_host(authority)) and is_loopback(split_host(self._host))
        return here or (self._insecure and authority == self._host)

    @property
    def base(self) -> str:
        """The registry's URL.

        The first time, a registry on this machine is asked whether it speaks TLS, which raises `UnavailableError`.
        """
        if not self._base:
            plain = self._insecure or (self.plain_allowed(self._host) and self.retried(self._speaks_plainly))
            self._base = f"{'http' if plain else 'https'}://{self._host}"
        return self._base

    def _speaks_plainly(self) -> bool:
        """Tell whether the registry answers a request that nobody encrypted and that says nothing.

        Raises `TransientError`.
        """
        url = f"http://{self._host}/v2/"
        try:
            with Answer(self._request("GET", url, _HEADERS), url) as answer:
                return answer.status != 400  # what a server says, if anything, that expected TLS
        except ProtocolError:
            return False
        except (HTTPError, OSError) as error:
            raise TransientError(_unreachable(url, error)) from None

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | IO[bytes] | None = None
    ) -> urllib3.BaseHTTPResponse:
        place = urlsplit(url)
        host = split_host(place.netloc)
        proxy = "" if is_loopback(host) or proxy_bypass(place.netloc) else getproxies().get(place.scheme, "")
        return self._connections.pool(proxy).request(
            method,
            url,
            body=data,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )

    def retried(self, call: Callable[[], _T], *, done: Callable[[], int] = lambda: 0) -> _T:
        """Return what `call` returns, calling it again while it raises `TransientError`; see `errors.retried`."""
        return retried(call, sleep=self._sleep, waits=self._waits, done=done)

    def send(
        self,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body | bytes | None = None,
        redirects: bool = True,
    ) -> Answer:
        """Send one request and return the answer, which is neither 5xx nor 429 and, with `redirects`, no redirect.

        `what` is for messages.

        Raises `TransientError`, and `RegistryError` for what no further try will change.
        """
        headers = {**_HEADERS, **headers}
        for _ in range(_MAX_REDIRECTS):
            answer = self._send(method, url, headers, body)
            host = urlsplit(url).netloc
            if answer.status == 429 or answer.status >= 500:
                with answer:
                    raise TransientError(
                        refused(host, what, answer.status, answer.read(_MAX_ERROR)), wait=_retry_after(answer.headers)
                    )
            location = answer.headers.get("Location")
            if not redirects or answer.status not in _REDIRECTS or location is None:
                return answer
            with answer:
                answer.read(_MAX_ERROR)
            target = resolve(url, location)
            if not same_origin(url, target):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise RegistryError(f"{self._host} redirects again and again", hint=WRONG)

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body | bytes | None) -> Answer:
        place = urlsplit(url)
        if place.scheme == "http" and self.base.startswith("https:") and not self.plain_allowed(place.netloc):
            raise RegistryError(f"{self._host} leads to {url[:200]!r}, which is not encrypted", hint=WRONG)
        target = urllib3.util.parse_url(url)
        self._connections.check(target.host or "", target.port or _PORTS[place.scheme])
        data = body if isinstance(body, bytes) or body is None else cast(IO[bytes], body.open())
        if body is not None:
            headers = {**headers, "Content-Length": str(len(body) if isinstance(body, bytes) else body.size)}
        try:
            response = self._request(method, url, headers, data)
        except SSLError as error:
            if _was_cut(error):
                raise TransientError(_unreachable(url, error)) from None
            hint = "if it has a certificate of its own, set SSL_CERT_FILE; if it has none, use --insecure"
            raise RegistryError(
                f"no encrypted connection to {place.netloc}: {_reason(error)}", code="REGISTRY_TLS", hint=hint
            ) from None
        except (HTTPError, OSError) as error:
            raise TransientError(_unreachable(url, error)) from None
        return Answer(response, url)


def same_origin(one: str, other: str) -> bool:
    """Tell whether two URLs have the same scheme, host and port (RFC 6454)."""
    a, b = (urllib3.util.parse_url(url) for url in (one, other))
    return (a.scheme, a.host, a.port or _PORTS.get(a.scheme or "")) == (
        b.scheme,
        b.host,
        b.port or _PORTS.get(b.scheme or ""),
    )


def resolve(url: str, location: str) -> str:
    """Return where `location`, as the answer from `url` gives it, is.

    Raises `RegistryError` when it is no web address.
    """
    try:
        target = urljoin(url, location)
        if (
            target.isascii()
            and target.isprintable()
            and urllib3.util.parse_url(target).host
            and urlsplit(target).scheme in _PORTS
        ):
            return target
    except ValueError:
        pass
    raise RegistryError(f"{urlsplit(url).netloc} leads to {location[:200]!r}, which is no web address", hint=WRONG)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    seconds = number(text, 0, 1 << 30)
    if seconds is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text[:100]).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _unreachable(url: str, error: Exception) -> UnavailableError:
    host = told(urlsplit(url).netloc, 100)
    for cause in _causes(error):
        if isinstance(cause, SlowError):
            hint = "try again later: what is here is kept"
            return UnavailableError(f"{host} was hung up on: {cause}", code="REGISTRY_SLOW", hint=hint)
    return UnavailableError(
        f"cannot reach {host}: {_reason(error)}", code="REGISTRY_UNAVAILABLE", hint="check the name and the network"
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, NameResolutionError):
        return "its name is not known"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return (cause.reason or "TLS failed").replace("_", " ").lower()
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return "it does not answer" if isinstance(error, HTTPTimeoutError) else "the connection was cut"


def _was_cut(error: SSLError) -> bool:
    """Tell whether the connection ended, or stalled, while TLS was being agreed on."""
    return any(isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | TimeoutError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what lies behind `error`, as far as its library says."""
    seen: list[BaseException] = [error]
    for item in seen:
        yield item
        more = (item.__cause__, item.__context__, *item.args)
        seen += [cause for cause in more if isinstance(cause, BaseException) and cause not in seen]
