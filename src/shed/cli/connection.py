"""The client for a command, as the global options ask for it."""

from __future__ import annotations

import os

from shed.cli.options import Options
from shed.client.address import resolve
from shed.client.client import Client
from shed.errors import UsageError


def client(options: Options) -> Client:
    """Return the client of the server that `options` mean."""
    return Client(resolve(options.server, config=options.config))


def local_dir(path: str, server: Client) -> str:
    """Return the absolute path of a folder to mount in a shed, after checking it where that is possible.  Raises `UsageError`."""
    path = os.path.abspath(path)  # noqa: PTH100  keeps links as they are written
    if server.address.path is not None and not os.path.isdir(path):  # noqa: PTH112
        what = "is not a folder" if os.path.lexists(path) else "does not exist"
        raise UsageError(f"{path} {what}", code="INVALID_LOCAL_DIR", hint="name an existing folder, or make it: mkdir")
    return path
