"""Holds what a server of the tests takes and sends to the OpenAPI document: `install` it before the server is made.

An answer or an event that its schema does not allow becomes the error CONTRACT_BROKEN, which the test then sees; so
does a request that the schema does not allow and the server took all the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jsonschema_rs

from shed.api.endpoint import Endpoint
from shed.api.events import EVENTS, Failure
from shed.api.openapi import answer_schema, document
from shed.errors import ShedError
from shed.server.app import App
from shed.server.http import Answer, Events, Reply, Request, error_answer

Answering = Callable[[App, Request], Awaitable[Reply]]


def install() -> None:
    """Check from now on what the servers of this process say."""
    original: Answering = App.__call__

    async def checked(app: App, request: Request) -> Reply:
        reply = await original(app, request)
        try:
            endpoint = app._find(request)[1].endpoint
        except ShedError:
            endpoint = None
        taken = not isinstance(reply, Answer) or reply.status < 400
        wrong = _wrong_request(endpoint, request) if taken and endpoint is not None else ""
        if isinstance(reply, Events) and not wrong:
            assert endpoint is not None
            return replace(reply, blocks=_blocks(endpoint, reply.blocks))
        wrong = wrong or _wrong_reply(endpoint, reply)
        return error_answer(ShedError(f"CONTRACT_BROKEN: {wrong}")) if wrong else reply

    App.__call__ = checked  # type: ignore[method-assign, assignment]


def _wrong_reply(endpoint: Endpoint[Any, Any, Any] | None, reply: Reply) -> str:
    if not isinstance(reply, Answer):
        return "" if endpoint is not None and endpoint.upgrade else "an upgrade of an endpoint that has none"
    if reply.status >= 400:
        return _problem(Failure, json.loads(reply.body))
    assert endpoint is not None
    if reply.status not in {endpoint.status, *endpoint.other_statuses}:
        return f"{endpoint.name} answers with status {reply.status}"
    if endpoint.answer is str:
        return "" if reply.content_type.startswith("text/plain") else f"{endpoint.name} sends {reply.content_type}"
    return _problem(endpoint.answer, json.loads(reply.body))


def _wrong_request(endpoint: Endpoint[Any, Any, Any], request: Request) -> str:
    """Return what is wrong with the body of a request that was taken."""
    if endpoint.method != "POST" or not request.body:
        return ""
    validator = _validator_of_body(endpoint.path)
    if validator is None:
        return ""
    return "; ".join(error.message for error in validator.iter_errors(json.loads(request.body)))


async def _blocks(
    endpoint: Endpoint[Any, Any, Any], blocks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    try:
        async for block in blocks:
            yield _checked_block(endpoint, block)
    finally:
        await blocks.aclose()


def _checked_block(endpoint: Endpoint[Any, Any, Any], block: bytes) -> bytes:
    if block.startswith(b":"):
        return block
    first, second = block.decode().removesuffix("\n\n").split("\n")
    name, data = first.removeprefix("event: "), json.loads(second.removeprefix("data: "))
    if endpoint.stream is not None:
        wrong = _problem(endpoint.stream, data) or ("" if data["kind"] == name else f"an event called {name!r}")
    elif not endpoint.events or name not in {*EVENTS, "complete"}:
        wrong = f"{endpoint.name} has no event {name!r}"
    else:
        wrong = _problem(endpoint.answer if name == "complete" else EVENTS[name], data)
    if not wrong:
        return block
    told = json.dumps({"code": "CONTRACT_BROKEN", "message": wrong, "status": 500})
    return f"event: error\ndata: {told}\n\n".encode()


def _problem(kind: Any, value: object) -> str:
    if not hasattr(kind, "__struct_fields__"):
        return ""
    return "; ".join(f"{kind.__name__}: {error.message}" for error in _validator(kind).iter_errors(value))


@cache
def _validator(kind: type[Any]) -> Any:
    return jsonschema_rs.validator_for(answer_schema(kind))


@cache
def _validator_of_body(path: str) -> Any:
    about = document()
    body = about["paths"][path]["post"].get("requestBody")
    if body is None:
        return None
    schema = body["content"]["application/json"]["schema"]
    return jsonschema_rs.validator_for({**schema, "components": about["components"]})
