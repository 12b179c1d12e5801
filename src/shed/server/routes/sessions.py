"""``/api/sessions`` and ``/api/sheds/{name}/sessions``: the tmux sessions in sheds."""

from __future__ import annotations

from shed.api.access import Right
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, json_answer
from shed.sheds import sessions


async def everywhere(server: Server, request: Request) -> Reply:
    """List the sessions of all running sheds; a shed that does not answer becomes a warning."""
    found, warnings = await sessions.all_sessions(server.manager)
    return json_answer({"sessions": found, "warnings": warnings})


async def index(server: Server, request: Request) -> Reply:
    """List the sessions of one shed."""
    return json_answer({"sessions": await sessions.list_sessions(server.manager, request.params["name"])})


async def kill(server: Server, request: Request) -> Reply:
    """End a session."""
    name, session = request.params["name"], request.params["session"]
    await sessions.kill_session(server.manager, name, session)
    return json_answer({"name": session, "shed": name})


ROUTES = (
    Route("GET", "/api/sessions", Right.USE, everywhere),
    Route("GET", "/api/sheds/{name}/sessions", Right.USE, index),
    Route("DELETE", "/api/sheds/{name}/sessions/{session}", Right.USE, kill),
)
