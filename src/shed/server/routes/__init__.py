"""The API by noun.  Each module holds its handlers and the `ROUTES` that bind them to endpoints of the contract."""

from __future__ import annotations

from shed.server.app import Route
from shed.server.routes import (
    access,
    awake,
    egress,
    events,
    images,
    mounts,
    ports,
    prebuilds,
    secrets,
    server,
    sheds,
    snapshots,
)

ROUTES: tuple[Route, ...] = (
    *server.ROUTES,
    *events.ROUTES,
    *access.ROUTES,
    *sheds.ROUTES,
    *awake.ROUTES,
    *images.ROUTES,
    *egress.ROUTES,
    *ports.ROUTES,
    *mounts.ROUTES,
    *secrets.ROUTES,
    *snapshots.ROUTES,
    *prebuilds.ROUTES,
)
