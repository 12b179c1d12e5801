"""The API by noun.  Each module holds its handlers and their `ROUTES`."""

from __future__ import annotations

from shed.server.app import Route
from shed.server.routes import connect, exec, images, info, sessions, sheds, ssh_keys, system, tokens  # noqa: A004  named as in the API

ROUTES: tuple[Route, ...] = (
    *info.ROUTES,
    *tokens.ROUTES,
    *ssh_keys.ROUTES,
    *sheds.ROUTES,
    *exec.ROUTES,
    *sessions.ROUTES,
    *connect.ROUTES,
    *images.ROUTES,
    *system.ROUTES,
)
