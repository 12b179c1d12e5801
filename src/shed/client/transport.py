"""A connection to the server, and the upgrade that turns it into a stream of raw bytes.

On the way of every `shed exec`: the C socket module alone (`socket` brings enum and selectors, which take longer than
the command), and a request written by hand.  Everything else goes through `shed.client.http`.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from shed.client.address import Address
from shed.errors import ShedError, UnavailableError
from shed.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_TIMEOUT = 10.0
"""Seconds to reach a server."""
ANSWER_TIMEOUT = 30.0
"""Seconds until a server that is well has begun to answer."""
_CONNECT_PAUSE = 0.05
PATIENCE = 1.0
"""Seconds after which the user should know what is waited for."""
_LONGEST_PATH = 100
"""A longer path may not fit into sockaddr_un (108 bytes on Linux, 104 on macOS)."""
_LONGEST_HEAD = 64 * 1024
INTERIM, SWITCHED = b"HTTP/1.1 102 ", b"HTTP/1.1 101 "
HEAD_END = b"\r\n\r\n"
MOST_INTERIM = 16
"""Answers that only say that another follows; a shed server sends one."""


class NotRunningError(UnavailableError):
    """Nothing listens at the address."""

    code = "SERVER_NOT_RUNNING"


class LeftError(UnavailableError):
    """A server hung up instead of an answer."""


def connect(address: Address, *, start: bool = True) -> _socket.socket:
    """Return a connected, blocking socket.  With `start`, the local server is started when it is not running.

    Raises `NotRunningError` and `UnavailableError`.
    """
    try:
        return _connect(address)
    except NotRunningError:
        if not (start and address.local):
            raise
    from shed import progress  # noqa: PLC0415  rarely needed
    from shed.client.local import start_server  # noqa: PLC0415  likewise

    start_server(
        lambda: is_running(address), on_wait=lambda: progress.on_wait.get()("waiting: the local server starts")
    )
    return _connect(address)


def is_running(address: Address) -> bool:
    """Say whether something accepts connections at `address`."""
    try:
        connect(address, start=False).close()
    except NotRunningError:
        return False
    return True


def _connect(address: Address) -> _socket.socket:
    if address.ssh is not None:
        from shed.client.ssh import dial  # noqa: PLC0415  starting ssh takes longer than importing what it needs

        return dial(address)
    try:
        return _connect_tcp(address) if address.path is None else _connect_unix(address.path)
    except (FileNotFoundError, ConnectionRefusedError):
        hint = "start it: shed server start" if address.local else "check that it runs, and the address"
        raise NotRunningError(f"no server listens at {address}", hint=hint) from None
    except BlockingIOError:
        raise silent(address, CONNECT_TIMEOUT) from None
    except OSError as error:
        reason = error.strerror or str(error)
        hint = (
            "it is another user's: run shed as that user" if isinstance(error, PermissionError) else "check the address"
        )
        raise UnavailableError(f"cannot reach the server at {address}: {reason}", hint=hint) from None


def _connect_unix(path: str) -> _socket.socket:
    folder, name = os.path.split(path)
    if os.stat(folder).st_uid not in (os.geteuid(), 0):  # noqa: PTH116  no pathlib here
        # The fallback is a folder in /tmp, where anybody can put one first and answer in the server's place.
        raise UnavailableError(
            f"{folder} belongs to somebody else", hint="set SHED_RUNTIME_DIR to a folder of your own"
        )
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    directory = -1
    try:
        if len(os.fsencode(path)) > _LONGEST_PATH:
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            path = f"/proc/self/fd/{directory}/{name}"
        _connect_in_time(sock, path)
    except BaseException:
        sock.close()
        raise
    finally:
        if directory >= 0:
            os.close(directory)
    return sock


def _connect_in_time(sock: _socket.socket, path: str) -> None:
    """Connect; a listener with a full queue, who may have stopped to accept, is tried for a while.

    Raises BlockingIOError.
    """
    sock.setblocking(False)
    deadline = 0.0
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            deadline = deadline or time.monotonic() + CONNECT_TIMEOUT
            if time.monotonic() > deadline:
                raise
            time.sleep(_CONNECT_PAUSE)
        else:
            break
    sock.setblocking(True)


def _ascii(host: str | None) -> str | bytes | None:
    """Return a host name as bytes if it needs no encoding: loading the codec takes as long as a small command."""
    return host.encode() if host is not None and host.isascii() else host


def _connect_tcp(address: Address) -> _socket.socket:
    problem: OSError | None = None
    host = _ascii(address.host)
    for family, kind, protocol, _, target in _socket.getaddrinfo(host, address.port, 0, _socket.SOCK_STREAM):
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.settimeout(CONNECT_TIMEOUT)
            sock.connect(target)
            sock.settimeout(None)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem or OSError(f"{address.host} has no address")


def ready(sources: list[int], sinks: list[int], seconds: float | None) -> tuple[set[int], set[int]]:
    """Wait until one of `sources` can be read, one of `sinks` written to, or `seconds` have passed; return which.

    One that has ended counts as ready.

    As select(2), but for descriptors of any number: that knows only those below 1024.
    """
    asked = dict.fromkeys(sources, select.POLLIN)
    for fd in sinks:
        asked[fd] = asked.get(fd, 0) | select.POLLOUT
    poll = select.poll()
    for fd, events in asked.items():
        poll.register(fd, events)
    found = poll.poll(None if seconds is None else seconds * 1000)
    readable = {fd for fd, events in found if events & ~select.POLLOUT and asked[fd] & select.POLLIN}
    return readable, {fd for fd, events in found if events & ~select.POLLIN and asked[fd] & select.POLLOUT}


def silent(address: Address, seconds: float) -> UnavailableError:
    """Return the error for a server that is there and says nothing."""
    hint = "check the address"
    if address.ssh is not None:
        hint = f"see how far this comes: {_dial_command(address)}"
    if address.path is not None:
        hint = (
            f"see who listens there: `lsof {address.path}`; a shed server that hangs can be ended: sheds keep running"
        )
    return UnavailableError(f"the server at {address} did not answer within {seconds:g} s", code="TIMEOUT", hint=hint)


def left(address: Address) -> LeftError:
    """Return the error for a server that hung up instead of an answer."""
    hint = "see its log: shed server status"
    if address.ssh is not None:
        hint = f"ssh said why; it must be able to run this: {_dial_command(address)}"
    return LeftError(f"the server at {address} left without an answer", hint=hint)


def stranger(address: Address) -> UnavailableError:
    """Return the error for what does not speak HTTP."""
    hint = "check the address"
    if address.ssh is not None:
        hint = (
            "a startup file of its shell may print something; this must print nothing: ssh "
            f"{' '.join(address.ssh)} true"
        )
    return UnavailableError(f"what listens at {address} is not a shed server", hint=hint)


def _dial_command(address: Address) -> str:
    return f"ssh {' '.join(address.ssh or ())} shed server dial-stdio"


def upgrade(
    address: Address,
    method: str,
    target: str,
    protocol: str,
    *,
    on_wait: Callable[[], None] | None = None,
    on_start: Callable[[], None] | None = None,
) -> _socket.socket:
    """Ask the server to turn a new connection into a `protocol` stream, and return it.

    Nothing of the stream has been read.

    `on_wait` is called once when nothing comes for a second, `on_start` when the server says that it must start the
    shed first: that takes as long as it takes.  Raises the `ShedError` the server answers with, and `UnavailableError`
    when it does not speak HTTP, is silent, or leaves.
    """
    sock = connect(address)
    try:
        sock.sendall(upgrade_request(address, method, target, protocol))
        limit: float | None = ANSWER_TIMEOUT
        for _ in range(MOST_INTERIM):
            if on_wait is not None and not ready([sock.fileno()], [], PATIENCE)[0]:
                on_wait()
                on_wait = None
            head = _read_head(sock, address, limit)
            if b"\r\nShed-State: starting" in head and on_start is not None:
                on_start()
                on_wait = None
            limit = None
            if not head.startswith(INTERIM):
                break
        if head.startswith(SWITCHED):
            return sock
        raise refusal(address, head, _read_body(sock, body_length(head), address))
    except OSError as error:
        sock.close()
        if address.ssh is not None:
            raise left(address) from None
        raise UnavailableError(f"lost the connection to the server at {address}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise


def upgrade_request(address: Address, method: str, target: str, protocol: str) -> bytes:
    """Return the request for a `protocol` stream."""
    known = authorization(address)
    shown = f"Authorization: {known}\r\n" if known else ""
    return (
        f"{method} {target} HTTP/1.1\r\nHost: {address.authority()}\r\nUser-Agent: {user_agent(address)}\r\n"
        f"{shown}Prefer: processing\r\n"
        f"Connection: Upgrade\r\nUpgrade: {protocol}\r\nContent-Length: 0\r\n\r\n"
    ).encode("ascii")


def user_agent(address: Address) -> str:
    """Return what goes into the User-Agent header, from which the server's audit log takes the client's name."""
    return f"shed/{VERSION} ({address.client})" if address.client else f"shed/{VERSION}"


def authorization(address: Address) -> str | None:
    """Return what goes into the Authorization header; None where it takes none, or nobody has a token for the server.

    To be called once the connection is there.  Raises `UsageError`, see `shed.client.tokens`.
    """
    if address.path is not None or address.ssh is not None:
        return None
    from shed.client.tokens import token_for  # noqa: PLC0415  few servers are reached so

    token = token_for(address)
    return f"Bearer {token}" if token else None


def _read_head(sock: _socket.socket, address: Address, limit: float | None) -> bytes:
    """Return the head of an answer, without its empty line; what comes after it is left to be read.

    `limit` is how many seconds the server may be silent.
    """
    head = b""
    while True:
        if limit is not None and not ready([sock.fileno()], [], limit)[0]:
            raise silent(address, limit)
        data = sock.recv(65536, _socket.MSG_PEEK)
        if not data or len(head) > _LONGEST_HEAD:
            raise left(address)
        end = (head + data).find(HEAD_END)
        head += sock.recv(len(data) if end < 0 else end + len(HEAD_END) - len(head))
        if end >= 0:
            return head[:end]


def body_length(head: bytes) -> int:
    """Return how many bytes follow the head of a refusal; 0 when it does not say."""
    for line in head.decode("latin-1").lower().split("\r\n"):
        if line.startswith("content-length:") and line[15:].strip().isdigit():
            return min(int(line[15:]), _LONGEST_HEAD)
    return 0


def refusal(address: Address, head: bytes, body: bytes) -> ShedError:
    """Return the error that an answer other than 101 stands for."""
    from shed.client.failures import error_of  # noqa: PLC0415  only failures pay for it

    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        return stranger(address)
    server = next((line[7:].strip() for line in lines if line.lower().startswith("server:")), "")
    return error_of(int(words[1]), body, server=server)


def _read_body(sock: _socket.socket, length: int, address: Address) -> bytes:
    """Return the body of a refusal, as much as comes."""
    body = b""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while len(body) < length:
        if not ready([sock.fileno()], [], max(0.0, deadline - time.monotonic()))[0]:
            raise silent(address, ANSWER_TIMEOUT)
        data = sock.recv(length - len(body))
        if not data:
            break
        body += data
    return body
