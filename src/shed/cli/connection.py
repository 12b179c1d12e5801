"""The client for a command, as the global options ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from shed.cli.options import Options
from shed.client.client import Client
from shed.client.config import exists, load, resolve
from shed.errors import UsageError
from shed.names import check_shed_name

_CREATE_TIMEOUT = 600.0
_MODES = ("rw", "ro", "git-rw")
"""How a folder may be shared; the server knows what they mean."""


def client(options: Options) -> Client:
    """Return the client of the server that `options` mean."""
    return Client(resolve(options.server, config=options.config))


def client_of(shed: str, options: Options) -> Client:
    """Return the client of the server that has `shed`: the one that `options` name, or whichever says that it has it."""
    check_shed_name(shed)
    if not has_config(options):
        return client(options)
    from shed.client.locate import locate  # noqa: PLC0415  for those who have several servers

    return Client(locate(shed, options.server, options.config))


def known_on(server: Client, options: Options) -> list[str]:
    """Return the sheds that were seen on `server`, for whoever has several servers."""
    if server.address.name is None or not has_config(options):
        return []
    return [shed for shed, entry in load(options.config).sheds.items() if entry.server == server.address.name]


def create_timeout(options: Options) -> float:
    """Return the seconds that a create may take when the command line does not say."""
    if not has_config(options):
        return _CREATE_TIMEOUT
    return load(options.config).create_timeout or _CREATE_TIMEOUT


def has_config(options: Options) -> bool:
    """Say whether there is a configuration to read."""
    return options.config is not None or exists()


def seen(server: Client, options: Options, sheds: Mapping[str, str], *, gone: Iterable[str] = ()) -> None:
    """Note where sheds are, for whoever has several servers: by name, with their status."""
    if server.address.name is not None and has_config(options):
        from shed.client.config_state import remember  # noqa: PLC0415  as above

        remember(load(options.config), server.address.name, sheds, gone=gone)


def where(server: Client) -> str:
    """Return what to say of a server that may not be the one that the user thinks of: nothing for this machine's own."""
    return "" if server.address.local else f" on {server.address.name or server.address}"


def local_dir(words: str, server: Client) -> tuple[str, str | None]:
    """Return the absolute path of a folder to mount in a shed, and how if ``:MODE`` stands behind it.

    Raises `UsageError`.

    It is checked where that is possible.
    """
    path, _, mode = words.rpartition(":")
    if not path or mode not in _MODES:
        path, mode = words, ""
    path = os.path.abspath(path)  # noqa: PTH100  keeps links as they are written
    if server.address.path is not None and not os.path.isdir(path):  # noqa: PTH112
        what = "is not a folder" if os.path.lexists(path) else "does not exist"
        raise UsageError(f"{path} {what}", code="INVALID_LOCAL_DIR", hint="name an existing folder, or make it: mkdir")
    return path, mode or None
