"""Talking to the agent of a running shed: control requests, and lines."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from shed.backends.base import Connection, Stream
from shed.errors import BackendError
from shed.guest.protocol import CONTROL_REQUEST, CONTROL_RESPONSE, PORT_CONTROL, FrameDecoder, ProtocolError, exec_frame
from shed.untrusted import MOST_JSON, load_object, told

_LONGEST_LINE = 4096
_MOST_FRAMES = 64
"""Frames of other kinds before the answer to a control request."""
AGENT_CODES = frozenset(
    {*(f"SHED-INIT-{number:02}" for number in range(1, 11)), "UNKNOWN_OPERATION", "NOT_CONFIGURABLE", "NOT_FROZEN"}
)
"""What an agent may call its refusal; anything else is an AGENT_ERROR."""
_READ = 4096
"""Bytes of a control answer that are looked at in one turn of the event loop."""


async def control(connection: Connection, op: str, *, wait: float, **fields: object) -> dict[str, Any]:
    """Ask the agent to do `op` and return its answer.

    Raises `BackendError`: with the agent's own code when it says no, AGENT_TIMEOUT after `wait` seconds, AGENT_PROTOCOL
    for nonsense.
    """
    stream = await connection.open(PORT_CONTROL)
    try:
        async with asyncio.timeout(wait):
            await stream.write(exec_frame(CONTROL_REQUEST, json.dumps({"op": op, **fields}).encode()))
            answer = await _response(stream, op)
    except TimeoutError:
        raise BackendError(f"the agent did not answer {op!r} within {wait:g} s", code="AGENT_TIMEOUT") from None
    finally:
        stream.close()
    if answer.get("ok") is not True:
        code = answer.get("code")
        known = isinstance(code, str) and code in AGENT_CODES
        raise BackendError(
            told(answer.get("error") or f"the agent refused {op!r}"), code=code if known else "AGENT_ERROR"
        )
    return answer


async def _response(stream: Stream, op: str) -> dict[str, Any]:
    decoder = FrameDecoder(MOST_JSON)
    others = 0
    try:
        while True:
            while frame := decoder.frame():
                kind, payload = frame
                if kind == CONTROL_RESPONSE:
                    return load_object(payload)
                others += 1
                if others > _MOST_FRAMES:
                    raise ProtocolError(f"{others} frames that are no answer")
            data = await stream.read(_READ)
            if not data:
                raise ProtocolError("the stream ended")
            decoder.feed(data)
    except (ProtocolError, ValueError) as error:
        raise BackendError(f"the agent's answer to {op!r} makes no sense: {error}", code="AGENT_PROTOCOL") from None


async def read_line(stream: Stream) -> str:
    """Read a line of the guest's, byte by byte: what follows belongs to the user.  Raises `BackendError`."""
    line = b""
    while not line.endswith(b"\n"):
        data = await stream.read(1)
        if not data or len(line) > _LONGEST_LINE:
            raise BackendError("the guest's proxy gave no answer", hint="try again")
        line += data
    return told(line.decode(errors="replace").strip())
