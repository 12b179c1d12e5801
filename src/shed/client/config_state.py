"""What commands note: servers that were added or removed, the default that was chosen, where sheds were seen.

``config.state.json`` beside the configuration file:

```json
{"servers": {"lab": {"url": "ssh://me@lab.example", "ssh_port": 2222, "added_at": "2026-11-24T19:00:00Z", "over": null},
             "old": {"removed": true, "over": {"url": "http://old:8080", "ssh_port": 2222}}},
 "default_server": {"name": "lab", "over": null},
 "sheds": {"dev": {"server": "lab", "status": "running", "updated_at": "2026-11-24T19:30:00Z"}}}
```

``over`` is what config.yaml said of the same entry at that time: once that changes, the note does not count any more,
and the next change of the file drops it.  With the first note, the ``sheds`` that an earlier version wrote into
config.yaml are taken over; from then on they are read here alone.

It is changed under a lock, after reading it again, in one step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shed.client.address import Address
from shed.client.config import Config, exists, load, state_path
from shed.fsutil import atomic_write, locked, storage_errors
from shed.names import check_server_name


def add_server(
    config: Config, name: str, address: Address, *, ssh_port: int | None = None, default: bool = False
) -> None:
    """Note a server, in place of one of the same name.

    With `default`, or as the first one, it becomes the default.  Raises `UsageError`, `StorageError`.
    """
    check_server_name(name)

    def edit(current: Config, state: dict[str, Any]) -> None:
        entry: dict[str, Any] = {"url": str(address), "added_at": _now(), "over": current.written["servers"].get(name)}
        if ssh_port is not None:
            entry["ssh_port"] = ssh_port
        state["servers"][name] = entry
        if default or not (current.servers or current.default):
            _choose(current, state, name)

    _change(config, edit)


def remove_server(config: Config, name: str) -> bool:
    """Forget a server, and where sheds were seen on it; return whether it was the default.  Raises `UsageError`."""
    was_default = False

    def edit(current: Config, state: dict[str, Any]) -> None:
        nonlocal was_default
        current.address(check_server_name(name))
        written = current.written["servers"].get(name)
        state["servers"].pop(name, None)
        if written is not None:
            state["servers"][name] = {"removed": True, "over": written}
        for shed in [shed for shed, entry in state["sheds"].items() if entry["server"] == name]:
            del state["sheds"][shed]
        was_default = current.default == name
        if was_default:
            _choose(current, state, None)

    _change(config, edit)
    return was_default


def set_default(config: Config, name: str) -> None:
    """Make a server the default.  Raises `UsageError` (UNKNOWN_SERVER)."""

    def edit(current: Config, state: dict[str, Any]) -> None:
        current.address(name)
        _choose(current, state, name)

    _change(config, edit)


def remember(config: Config, server: str | None, seen: Mapping[str, str], *, gone: Iterable[str] = ()) -> None:
    """Note that the sheds `seen`, by name and status, are on `server`, and that those `gone` are not.

    Does nothing for a server without a name, and without other servers: then there is nothing to be found.
    """
    if server is None or not config.servers:
        return
    gone = [shed for shed in gone if shed not in seen]

    def news(current: Config) -> dict[str, str]:
        known = {shed: entry.status for shed, entry in current.sheds.items() if entry.server == server}
        return {shed: status for shed, status in seen.items() if known.get(shed) != status}

    def stale(current: Config) -> list[str]:
        return [shed for shed in gone if shed in current.sheds and current.sheds[shed].server == server]

    def edit(current: Config, state: dict[str, Any]) -> None:
        for shed, status in news(current).items():
            state["sheds"][shed] = {"server": server, "status": status, "updated_at": _now()}
        for shed in stale(current):
            del state["sheds"][shed]

    if news(config) or stale(config):
        _change(config, edit)


def _choose(current: Config, state: dict[str, Any], name: str | None) -> None:
    written = current.written["default_server"]
    state["default_server"] = {"name": name, "over": written}
    if name == written:
        del state["default_server"]


def _change(config: Config, edit: Callable[[Config, dict[str, Any]], None]) -> None:
    """Replace the state by what `edit` makes of it, in one step, and with nobody else in between."""
    path = Path(state_path(config.path))
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        current = load(config.path) if exists(config.path) else Config(config.path)
        state = _counting(current)
        edit(current, state)
        text = json.dumps(state, indent=1) + "\n"
        Config(config.path, current.written, json.loads(text))  # never write what would not be read
        atomic_write(path, text, mode=0o600)


def _counting(current: Config) -> dict[str, Any]:
    """Return a copy of the state without the notes that do not count any more."""
    written, state = current.written, current.state
    kept = {
        "servers": {
            name: noted
            for name, noted in state.get("servers", {}).items()
            if noted["over"] == written["servers"].get(name)
        },
        "sheds": dict(state.get("sheds", written["sheds"])),
    }
    chosen = state.get("default_server")
    if chosen and chosen["over"] == written["default_server"]:
        kept["default_server"] = chosen
    return kept


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
