# Generated from shed/client/aio/requests.py: change that one, and run `make sdk`.
"""Requests to the server: JSON in, JSON out, or work whose events are told as they come.  One connection each."""

from __future__ import annotations

from shed.client import http, messages
from shed.client.address import Address
from shed.client.sync import driver
from shed.client.transport import LeftError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from shed.progress import Event

    Sink = Callable[[Event], object]

_LEAVING = 60.0
"""Seconds of silence, which the server breaks while it works."""


def request(
    address: Address,
    method: str,
    target: str,
    *,
    body: object = None,
    start: bool = True,
    timeout: float | None = None,
) -> Any:
    """Send one request and return what the server answers: decoded JSON, text, or None when there is no body.

    `timeout` is how many seconds the server may be silent, `http.TIMEOUT` when it is None.  A GET is sent again to the
    next server when one leaves without an answer: it was just ending.  Raises the `ShedError` that the server answers
    with, or `UnavailableError`.
    """

    def ask() -> Any:
        with Exchange(address, method, target, body=body, start=start, timeout=timeout) as exchange:
            return exchange.answer.value(exchange.read())

    try:
        return ask()
    except LeftError:
        if method != "GET" or address.ssh is not None:  # ssh has said why, and it would only say so again
            raise
    return ask()


def work(
    address: Address, method: str, target: str, *, body: object = None, on_event: Sink | None = None
) -> dict[str, Any]:
    """Have the server do something that takes long, and return its result.

    What happens meanwhile goes to `on_event`.  Leaving early drops the connection.  Raises as `request` does, and
    `UnavailableError` when the server goes away before the end.
    """
    with Exchange(address, method, target, body=body, accept=messages.EVENTS) as exchange:
        return completed(exchange, on_event)


def completed(exchange: Exchange, on_event: Sink | None) -> dict[str, Any]:
    """Return the result of work whose events come by `exchange`.  Raises as `work` does."""
    for event in exchange.events():
        if event.name == "complete":
            return event.data
        if on_event is not None and (shown := http.progress_event(event)) is not None:
            on_event(shown)
    raise http.went_away()


class Exchange:
    """One request and its answer, on a connection of its own.

    Entering it returns when the head of a successful answer is here.  Its events end with `BrokenPipeError` when nobody
    reads the descriptor `output` any more.
    """

    def __init__(
        self,
        address: Address,
        method: str,
        target: str,
        *,
        body: object = None,
        accept: str = "application/json",
        start: bool = True,
        timeout: float | None = None,
        output: int | None = None,
    ) -> None:
        self.answer = http.Answer(address)
        self._start = start
        self._timeout = http.TIMEOUT if timeout is None else timeout
        self._output = output
        self._request = method, target, body, accept

    def __enter__(self) -> Exchange:
        address = self.answer.address
        self._connection = driver.connect(address, start=self._start)
        try:
            self._patience = http.Patience(address, self._timeout)
            message = self.answer.request(*self._request)
            try:
                self._connection.write(message, self._patience.next())
            except TimeoutError:
                raise self._patience.over() from None
            except OSError:
                raise self.answer.lost() from None
            while self.answer.head is None:
                self._next()
            if self.answer.failed:
                raise self.answer.failure(self.read())
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def leave(self) -> None:
        """Tell the server that this client leaves, and wait until it has done what it does then."""
        try:
            self._connection.end()
            while self._connection.read(_LEAVING):
                pass
        except OSError:  # a server that is gone has the next one do it
            pass

    def read(self) -> bytes:
        """Return the whole body."""
        body = bytearray()
        for chunk in self._chunks():
            body += chunk
            if len(body) > http.LONGEST_BODY:
                raise self.answer.too_long()
        return bytes(body)

    def events(self) -> Iterator[http.Event]:
        """Yield the server's events as they come; a plain answer is one ``complete`` event.

        An ``error`` event is raised.
        """
        if self.answer.content_type() != messages.EVENTS:
            yield http.plain_event(self.answer, self.read())
            return
        self._patience.lift()
        parser = http.EventParser()
        for chunk in self._chunks():
            for name, text in parser.feed(chunk):
                yield http.decode_event(name, text, self.answer.address)

    def _chunks(self) -> Iterator[bytes]:
        while (part := self._next()) is not None:
            yield part

    def _next(self) -> bytes | None:
        """Return a piece of the body, empty for the head; None at its end."""
        while (part := self.answer.next()) is None and not self.answer.complete:
            try:
                self.answer.feed(self._connection.read(self._patience.next(), output=self._output))
            except TimeoutError:
                raise self._patience.over() from None
            except BrokenPipeError:
                raise
            except OSError:
                raise self.answer.lost() from None
        return part
