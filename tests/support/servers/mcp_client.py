"""An agent that talks to `shed mcp` by the official MCP client."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import TextContent


class Agent:
    """Calls tools: one that must do what it is asked, or refuse it."""

    def __init__(self, client: ClientSession) -> None:
        self.client = client

    async def call(self, tool: str, arguments: Mapping[str, Any], **more: Any) -> tuple[str, bool]:
        """Call a tool; return what it says, and whether it says so as an error."""
        result = await self.client.call_tool(tool, dict(arguments), **more)
        (content,) = result.content
        assert isinstance(content, TextContent)
        return content.text, result.is_error

    async def do(self, tool: str, /, **arguments: Any) -> str:
        """Return what a tool says, which must not be an error."""
        text, failed = await self.call(tool, arguments)
        assert not failed, text
        return text

    async def refused(self, tool: str, /, **arguments: Any) -> str:
        """Return the error that a tool says."""
        text, failed = await self.call(tool, arguments)
        assert failed, text
        return text

    async def create(self, **arguments: Any) -> str:
        """Make a shed, and return its name."""
        return (await self.do("create", **arguments)).split()[0]


@contextlib.asynccontextmanager
async def agent(environment: Mapping[str, str], *words: str) -> AsyncIterator[Agent]:
    """Run `shed mcp` with the options `words` while the block lasts; yield what talks to it."""
    command = ["-m", "shed.cli.main", "mcp", *words]
    program = StdioServerParameters(command=sys.executable, args=command, env=dict(environment))
    async with stdio_client(program) as (reading, writing), ClientSession(reading, writing) as client:
        await client.initialize()
        yield Agent(client)
