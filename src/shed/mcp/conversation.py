"""The Model Context Protocol, as far as a server of tools speaks it: messages in, messages out.  No I/O here.

Both eras of the protocol are served: the one in which a client begins with ``initialize``, and that of 2026-07-28, in
which each request brings its version along.  The messages are those of the official SDK's package `mcp_types`; why the
SDK's own server is not used: docs/decisions/0074.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolRequestParams,
    CallToolResult,
    DiscoverResult,
    Implementation,
    InitializeRequestParams,
    InitializeResult,
    JSONRPCNotification,
    JSONRPCRequest,
    ListToolsResult,
    ServerCapabilities,
    TextContent,
    ToolAnnotations,
    ToolsCapability,
    jsonrpc_message_adapter,
)
from mcp_types import Tool as ToolMessage
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ValidationError

from shed.api.decoding import convert
from shed.errors import ShedError, UnavailableError, of_os_error
from shed.mcp.schema import schema_of
from shed.mcp.session import Session
from shed.mcp.tools import TOOLS, Tool
from shed.progress import Event, OutputEvent, PhaseEvent, WarningEvent
from shed.text import Watched, unaltered
from shed.untrusted import told
from shed.version import VERSION

log = logging.getLogger(__name__)
MOST_MESSAGE = 8 << 20
"""Bytes of one message of a client."""
MOST_CALLS = 32
"""Calls that are under way at one time."""
MOST_ANSWER = 400_000
"""Characters that a tool says."""
_MOST_TOLD = 1000
"""Notifications of progress of one call."""
_MODERN_MEMBERS = ("resultType", "ttlMs", "cacheScope")
"""What results have since 2026-07-28 alone."""
_INSTRUCTIONS = (
    "Sheds are Linux virtual machines of your own, apart from the user's machine: do there what you like. "
    "Begin with create, or with list when the user has given you sheds. Make a checkpoint before what may go wrong."
)
Send = Callable[[str], None]
"""Sends one message, which is a line."""


class ProtocolError(Exception):
    """A request that is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Conversation:
    """One client and its `session`."""

    def __init__(self, session: Session, send: Send) -> None:
        self._session = session
        self._send = send
        self._tools: dict[str, Tool[Any]] = {
            tool.name: tool for tool in TOOLS if session.grant.folder or not tool.needs_folder
        }
        self._calls: dict[int | str, asyncio.Task[None]] = {}
        self._info = Implementation(name="shed", version=VERSION)
        self._capabilities = ServerCapabilities(tools=ToolsCapability())

    def hear(self, data: bytes) -> None:
        """Take one message of the client; what it asks for goes on in a task."""
        try:
            message = jsonrpc_message_adapter.validate_json(data, by_name=False)
        except ValueError:
            self._fail(None, ProtocolError(PARSE_ERROR, "not a JSON-RPC message"))
            return
        if isinstance(message, JSONRPCRequest):
            if len(self._calls) >= MOST_CALLS or message.id in self._calls:
                self._fail(message.id, ProtocolError(INTERNAL_ERROR, f"more than {MOST_CALLS} calls, or one id twice"))
                return
            task = asyncio.create_task(self._serve(message))
            self._calls[message.id] = task
            task.add_done_callback(lambda _: self._done(message.id, task))
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            asked = (message.params or {}).get("requestId")
            if isinstance(asked, int | str) and (call := self._calls.get(asked)) is not None:
                call.cancel()

    def too_long(self) -> None:
        """Answer a message of more than `MOST_MESSAGE` bytes."""
        self._fail(None, ProtocolError(PARSE_ERROR, f"a message has more than {MOST_MESSAGE} bytes"))

    async def close(self) -> None:
        """End all calls."""
        calls = [*self._calls.values()]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _done(self, number: int | str, task: asyncio.Task[None]) -> None:
        if self._calls.get(number) is task:
            del self._calls[number]

    async def _serve(self, request: JSONRPCRequest) -> None:
        """Answer a request; one that is cancelled gets no answer."""
        task = self._calls[request.id]
        try:
            modern = _is_modern(request.params)
            result = await self._result(request, modern=modern)
        except (ProtocolError, ValidationError) as error:
            wrong = ProtocolError(INVALID_PARAMS, "the parameters are wrong")
            self._done(request.id, task)
            self._fail(request.id, error if isinstance(error, ProtocolError) else wrong)
            return
        shown: dict[str, Any] = {} if result is None else _dumped(result)
        if modern:
            shown |= {"resultType": "complete", "_meta": {SERVER_INFO_META_KEY: _dumped(self._info)}}
        else:
            shown = {key: value for key, value in shown.items() if key not in _MODERN_MEMBERS}
        self._done(request.id, task)  # before the client knows, for it may ask again at once
        self._say({"id": request.id, "result": shown})

    async def _result(self, request: JSONRPCRequest, *, modern: bool) -> BaseModel | None:
        params = request.params or {}
        match request.method:
            case "initialize" if not modern:
                asked = InitializeRequestParams.model_validate(params, by_name=False).protocol_version
                return InitializeResult(
                    protocol_version=asked if asked in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION,
                    capabilities=self._capabilities,
                    server_info=self._info,
                    instructions=_INSTRUCTIONS,
                )
            case "server/discover" if modern:
                return DiscoverResult(
                    supported_versions=list(MODERN_PROTOCOL_VERSIONS),
                    capabilities=self._capabilities,
                    instructions=_INSTRUCTIONS,
                )
            case "ping":
                return None
            case "tools/list":
                return ListToolsResult(tools=[self._described(tool) for tool in self._tools.values()])
            case "tools/call":
                return await self._call(CallToolRequestParams.model_validate(params, by_name=False), params)
        raise ProtocolError(METHOD_NOT_FOUND, "this server has no such method", told(request.method, 100))

    def _described(self, tool: Tool[Any]) -> ToolMessage:
        return ToolMessage(
            name=tool.name,
            description=" ".join((tool.arguments.__doc__ or "").split()),
            input_schema=schema_of(tool.arguments, self._session.grant),
            annotations=ToolAnnotations(
                read_only_hint=tool.reads, destructive_hint=tool.destroys, open_world_hint=False
            ),
        )

    async def _call(self, asked: CallToolRequestParams, params: dict[str, Any]) -> CallToolResult:
        """Call a tool.  What goes wrong in it is for the model, which may do better."""
        tool = self._tools.get(asked.name)
        if tool is None:
            raise ProtocolError(INVALID_PARAMS, f"there is no tool '{told(asked.name, 100)}'")
        meta = params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        try:
            arguments = convert({k: v for k, v in (asked.arguments or {}).items() if v is not None}, tool.arguments)
            return _said(await tool.run(self._session, arguments, self._teller(token)), exact=tool.exact)
        except (ShedError, OSError) as error:
            told_error = error if isinstance(error, ShedError) else of_os_error(error)
            if told_error is None:
                log.exception("the tool %s failed", tool.name)
                told_error = UnavailableError("shed mcp has a fault", hint="its log says more")
            hint = f"\nnext: {told_error.next_step}" if told_error.next_step else ""
            return _said(f"{told_error.message}{hint}", failed=True)
        except Exception as error:
            log.exception("the tool %s failed", tool.name)
            raise ProtocolError(INTERNAL_ERROR, "shed mcp has a fault; its log says more") from error

    def _teller(self, token: object) -> Callable[[Event], None]:
        """Return what tells the client of the progress of a call that it has given `token`; nothing without one."""
        count = 0

        def tell(event: Event) -> None:
            nonlocal count
            text = event.line if isinstance(event, OutputEvent) else getattr(event, "message", "")
            if not isinstance(event, PhaseEvent | WarningEvent | OutputEvent) or not text or count >= _MOST_TOLD:
                return
            count += 1
            params = {"progressToken": token, "progress": count, "message": told(text)}
            self._say({"method": "notifications/progress", "params": params})

        return tell if isinstance(token, int | str) and not isinstance(token, bool) else lambda event: None

    def _fail(self, number: int | str | None, error: ProtocolError) -> None:
        about: dict[str, object] = {"code": error.code, "message": str(error)}
        if error.data is not None:
            about["data"] = error.data
        self._say({"id": number, "error": about})

    def _say(self, message: dict[str, Any]) -> None:
        self._send(msgspec.json.encode({"jsonrpc": "2.0", **message}).decode())


def _is_modern(params: dict[str, Any] | None) -> bool:
    """Return whether a request is of the second era.  Raises `ProtocolError` for a version that is not served."""
    meta = (params or {}).get("_meta")
    if not isinstance(meta, dict) or PROTOCOL_VERSION_META_KEY not in meta:
        return False
    version = meta[PROTOCOL_VERSION_META_KEY]
    if version not in MODERN_PROTOCOL_VERSIONS:
        data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": told(version, 40)}
        raise ProtocolError(UNSUPPORTED_PROTOCOL_VERSION, "this version of the protocol is not served", data)
    return True


def _said(text: str, *, failed: bool = False, exact: bool = False) -> CallToolResult:
    """Return a tool's answer, with nothing in it that a terminal would obey."""
    shown = unaltered(text) if exact else Watched().feed(text.encode(errors="surrogateescape"), last=True)
    if len(shown) > MOST_ANSWER:
        shown = shown[:MOST_ANSWER] + "\n[the rest is left out: ask for less]"
    return CallToolResult(content=[TextContent(text=shown)], is_error=failed)


def _dumped(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)
