"""The protocol, message by message, without a server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp_types import PROTOCOL_VERSION_META_KEY, methods

from shed.client.address import Address
from shed.mcp.conversation import MOST_CALLS, Conversation
from shed.mcp.grant import Grant
from shed.mcp.session import Session

MODERN = {"_meta": {PROTOCOL_VERSION_META_KEY: "2026-07-28"}}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class Talk:
    """A conversation, and what it has said."""

    def __init__(self, tmp_path: Path, **granted: Any) -> None:
        self.said: list[dict[str, Any]] = []
        session = Session(Address(path=str(tmp_path / "nobody.sock")), Grant(**granted))
        self.conversation = Conversation(session, lambda line: self.said.append(json.loads(line)))

    async def hear(self, message: object) -> dict[str, Any]:
        """Return the answer to a message."""
        before = len(self.said)
        self.conversation.hear(message if isinstance(message, bytes) else json.dumps(message).encode())
        async with asyncio.timeout(60):
            while len(self.said) == before:
                await asyncio.sleep(0)
        assert self.said[-1]["jsonrpc"] == "2.0"
        return self.said[-1]

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a request."""
        answer = await self.hear({"jsonrpc": "2.0", "id": "a", "method": method, "params": params})
        assert answer["id"] == "a"
        return answer


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    """A conversation with nothing granted."""
    return Talk(tmp_path)


@pytest.mark.parametrize(
    ("asked", "given"), [("2025-06-18", "2025-06-18"), ("2026-07-28", "2025-11-25"), ("x", "2025-11-25")]
)
async def test_the_handshake(asked: str, given: str, talk: Talk) -> None:
    """The client's version if it is one of those that have a handshake, else the last of these."""
    result = (await talk.ask("initialize", {**HELLO, "protocolVersion": asked}))["result"]
    assert (result["protocolVersion"], result["serverInfo"]["name"]) == (given, "shed")
    assert result["capabilities"] == {"tools": {}}
    methods.validate_server_result("initialize", given, result)


async def test_answers_are_those_of_the_version(talk: Talk) -> None:
    """With the members that 2026-07-28 demands, and none of them for clients before it."""
    for params, version in ((None, "2025-11-25"), (MODERN, "2026-07-28")):
        for method, more in (("tools/list", {}), ("tools/call", {"name": "list", "arguments": {}})):
            result = (await talk.ask(method, {**(params or {}), **more}))["result"]
            methods.validate_server_result(method, version, result)
            assert ("resultType" in result) == ("_meta" in result) == (params is not None)
    found = (await talk.ask("server/discover", MODERN))["result"]
    methods.validate_server_result("server/discover", "2026-07-28", found)
    assert (await talk.ask("ping"))["result"] == {}


async def test_a_version_that_nobody_knows(talk: Talk) -> None:
    """The error names those that are served."""
    error = (await talk.ask("tools/list", {"_meta": {PROTOCOL_VERSION_META_KEY: "2030-01-01"}}))["error"]
    assert (error["code"], error["data"]["supported"]) == (-32022, ["2026-07-28"])


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("server/discover", None, -32601),
        ("initialize", MODERN, -32601),
        ("initialize", {}, -32602),
        ("resources/list", None, -32601),
        ("tools/call", {"name": "copy", "arguments": {}}, -32602),
        ("tools/call", {"name": 1}, -32602),
        ("tools/call", None, -32602),
    ],
)
async def test_requests_that_are_refused(method: str, params: dict[str, Any] | None, code: int, talk: Talk) -> None:
    """Methods of the other era, or that are not there; tools that are not granted; wrong parameters."""
    assert (await talk.ask(method, params))["error"]["code"] == code


@pytest.mark.parametrize(
    "data", [b"x", b"{}", b"[]", b"\xff", b'{"jsonrpc":"1.0","id":1,"method":"ping"}', b"[" * 100_000]
)
async def test_what_is_no_message(data: bytes, talk: Talk) -> None:
    """It is answered with an error without an id, and the next message is heard."""
    answer = await talk.hear(data)
    assert (answer["id"], answer["error"]["code"]) == (None, -32700)
    assert "result" in await talk.ask("ping")


async def test_what_needs_no_answer(talk: Talk) -> None:
    """Notifications, known or not, and answers to nothing."""
    for message in (
        {"method": "notifications/initialized"},
        {"method": "notifications/cancelled", "params": {"requestId": 7}},
        {"method": "notifications/cancelled", "params": {"requestId": {}}},
        {"method": "notifications/other"},
        {"id": 1, "result": {}},
    ):
        talk.conversation.hear(json.dumps({"jsonrpc": "2.0", **message}).encode())
    await talk.conversation.close()
    assert talk.said == []


async def test_calls_are_counted(talk: Talk) -> None:
    """A client that asks for too much at once is told so."""
    for number in range(MOST_CALLS + 1):
        talk.conversation.hear(json.dumps({"jsonrpc": "2.0", "id": number, "method": "ping"}).encode())
    async with asyncio.timeout(60):
        while len(talk.said) <= MOST_CALLS:
            await asyncio.sleep(0)
    assert [message["id"] for message in talk.said if "error" in message] == [MOST_CALLS]
    assert "result" in await talk.ask("ping")


async def test_wrong_arguments_are_told_to_the_model(talk: Talk) -> None:
    """As the answer of the tool, with what to do next."""
    for arguments, said in (
        ({}, "command is missing"),
        ({"command": "x", "sched": "y"}, "did you mean 'shed'?"),
        ({"command": "x", "timeout": 1e9}, "timeout must be a number of more than 0 to 3600\nnext: it is 1000000000.0"),
        ({"command": "x"}, "there is no shed yet\nnext: make one: create"),
    ):
        result = (await talk.ask("tools/call", {"name": "exec", "arguments": arguments}))["result"]
        assert result["isError"]
        assert said in result["content"][0]["text"]


async def test_a_model_reads_little(tmp_path: Path) -> None:
    """All tools together take a few thousand characters; each is described, and has a closed schema."""
    talk = Talk(tmp_path, images=("base",), repos=("https://x/",), profiles=("a",), prebuilds=("b",), folder=tmp_path)
    tools = (await talk.ask("tools/list"))["result"]["tools"]
    assert len(tools) == 16
    assert len(json.dumps(tools)) < 12_000
    for tool in tools:
        assert 20 < len(tool["description"]) < 140
        assert tool["inputSchema"]["additionalProperties"] is False
        assert "null" not in json.dumps(tool["inputSchema"])
