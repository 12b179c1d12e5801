"""`shed.client.http` for asyncio: one request and its answer, on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h11

from shed.client import http, streams
from shed.client.address import Address


class AsyncExchange:
    """One request and its answer.  Entering it returns when the head of a successful answer is here."""

    def __init__(
        self, address: Address, method: str, target: str, *, body: object = None, accept: str = "application/json"
    ) -> None:
        self.answer = http.Answer(address)
        self._patience = http.Patience(address, http.TIMEOUT)
        self._request = method, target, body, accept
        self._streams: streams.Streams | None = None

    async def __aenter__(self) -> AsyncExchange:
        self._streams = await streams.connect(self.answer.address)
        try:
            method, target, body, accept = self._request
            message = http.encode_request(
                self.answer.connection, self.answer.address, method, target, body=body, accept=accept
            )
            self._streams[1].write(message)
            while self.answer.head is None:
                await self._next()
            if self.answer.failed:
                raise self.answer.failure(await self.read())
        except BaseException:
            self._streams[1].transport.abort()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._streams is not None
        self._streams[1].close()

    async def read(self) -> bytes:
        """Return the whole body."""
        body = bytearray()
        async for chunk in self._chunks():
            body += chunk
            if len(body) > http.LONGEST_BODY:
                raise self.answer.too_long()
        return bytes(body)

    async def events(self) -> AsyncIterator[http.Event]:
        """Yield the server's events as they come; a plain answer is one ``complete`` event.

        An ``error`` event is raised.
        """
        if self.answer.content_type() != "text/event-stream":
            yield http.plain_event(self.answer, await self.read())
            return
        self._patience.lift()
        parser = http.EventParser()
        async for chunk in self._chunks():
            for name, text in parser.feed(chunk):
                yield http.decode_event(name, text, self.answer.address)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while (part := self.answer.part(await self._next())) is not None:
            yield part

    async def _next(self) -> h11.Event:
        assert self._streams is not None
        while (event := self.answer.event()) is None:
            try:
                async with asyncio.timeout(self._patience.next()):
                    self.answer.feed(await self._streams[0].read(streams.CHUNK))
            except TimeoutError:
                raise self._patience.over() from None
            except OSError:
                raise self.answer.lost() from None
        return event
