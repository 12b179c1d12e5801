"""Which servers there are, which one is meant, and which shed was seen where.

```
~/.shed/config.yaml          what a person writes; no program changes it (`shed.client.config_yaml` reads it)
        config.state.json    what commands noted (`shed.client.config_state` writes it): servers that were added, the
                             default that was chosen, where sheds were seen
        .config.yaml.cache   what config.yaml says, as JSON; it counts as long as that file is the same
```

What a command noted about a server, or about the default, holds until somebody edits the same entry of config.yaml.

On the way of every `shed exec`, and YAML takes longer to import than all the rest of it: imports nothing that takes
time.
"""

from __future__ import annotations

import os

from shed.client.address import DEFAULT_SSH_PORT, Address, local, parse
from shed.errors import ShedError, UsageError
from shed.names import LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RACY_NS = 1_000_000_000
"""A file that was changed less than so many nanoseconds ago is not cached: the next change could have the same time."""


class ServerEntry:
    """One server: how it is called, where it is, and the port of its SSH front."""

    __slots__ = ("address", "name", "ssh_port")

    def __init__(self, name: str, address: Address, ssh_port: int) -> None:
        self.name = name
        self.address = address
        self.ssh_port = ssh_port


class ShedEntry:
    """Where a shed was seen last, and how it was."""

    __slots__ = ("server", "status")

    def __init__(self, server: str, status: str = "") -> None:
        self.server = server
        self.status = status


class Config:
    """What is configured: the file `path`, and what commands noted beside it; the defaults when there is neither."""

    __slots__ = ("create_timeout", "default", "dotfiles", "path", "servers", "sheds", "state", "written")

    def __init__(self, path: str, written: dict[str, Any] | None = None, state: dict[str, Any] | None = None) -> None:
        """`written` is what `shed.client.config_yaml.read` returned, `state` what `config_state` wrote.

        Raises `UsageError` (INVALID_CONFIG) for a state that is none, and a default that is no server.
        """
        self.path = path
        self.written = written or {"servers": {}, "sheds": {}, "default_server": None, "create_timeout": None}
        self.state = state or {}
        self.create_timeout: float | None = self.written["create_timeout"]
        """Seconds that a create may take, unless the user says otherwise."""
        self.dotfiles: str | None = self.written.get("dotfiles")
        """The repository with the dotfiles that `shed create` gives to new sheds."""
        try:
            self.servers: dict[str, ServerEntry] = {
                name: _server(name, entry) for name, entry in self._merged_servers().items()
            }
            seen = self.state.get("sheds", self.written["sheds"])
            self.sheds: dict[str, ShedEntry] = {
                name: ShedEntry(str(entry["server"]), str(entry.get("status", ""))) for name, entry in seen.items()
            }
            noted = self.state.get("default_server") or {"name": None, "over": ()}
            noted_default: str | None = noted["name"]
            noted_over = noted["over"]
        except (KeyError, TypeError, ValueError, AttributeError, ShedError):
            hint = "delete it, and add the servers again that `shed server add` had added"
            raise invalid(state_path(path), "it is not what shed wrote", hint=hint) from None
        default: str | None = self.written["default_server"]
        if noted_over == default and (noted_default is None or self._knows(noted_default)):
            default = noted_default
        elif default is not None and not self._knows(default):
            raise invalid(path, f"default_server is {default!r}, which is none of servers")
        self.default = default

    def _knows(self, name: str) -> bool:
        return name == LOCAL or name in self.servers

    def _merged_servers(self) -> dict[str, Any]:
        written = self.written["servers"]
        merged = dict(written)
        for name, noted in self.state.get("servers", {}).items():
            if noted["over"] == written.get(name):
                if noted.get("removed"):
                    merged.pop(name, None)
                else:
                    merged[name] = noted
        return merged

    def address(self, name: str) -> Address:
        """Return the address of the server called `name`.  Raises `UsageError` (UNKNOWN_SERVER)."""
        if name == LOCAL:
            return local()
        if name in self.servers:
            return self.servers[name].address
        import difflib  # noqa: PLC0415  for mistakes alone

        near = difflib.get_close_matches(name, [*self.servers, LOCAL], n=1)
        hint = "see `shed server list`, or name a URL: unix:///path, http://host:port, ssh://host"
        raise UsageError(
            f"{self.path} knows no server {name!r}",
            code="UNKNOWN_SERVER",
            hint=f"did you mean {near[0]}?" if near else hint,
        )

    def choose(self, name: str | None, shed: str | None) -> Address:
        """Return the address of the server called `name`.

        Without one, of where `shed` was seen, the default, or the local server.  With `shed` and without `name` it is a
        guess, unless no other server is known.
        """
        if name is not None:
            return self.address(name)
        seen = self.sheds.get(shed) if shed is not None else None
        known = seen is not None and self._knows(seen.server)
        address = self.address(seen.server if seen is not None and known else self.default or LOCAL)
        address.guess = shed is not None and bool(self.servers)
        return address

    def names(self) -> list[str]:
        """Return the names of all servers, this machine's own first."""
        return [LOCAL, *self.servers]


def resolve(server: str | None = None, *, config: str | None = None, shed: str | None = None) -> Address:
    """Return the address to use when the user named `server`; `config` is the configuration file, if one was named.

    First match wins: `server`, ``SHED_SERVER``, where `shed` was seen, the configuration's default, the local server.
    Raises `UsageError` for a name, URL or configuration that cannot be used.
    """
    named = server or os.environ.get("SHED_SERVER") or None
    if named is not None and "://" in named:
        return parse(named)
    return load(config).choose(named, shed)


def load(file: str | None = None) -> Config:
    """Return what is configured; `file` is the configuration file to read instead of the usual one.

    Raises `UsageError` (INVALID_CONFIG).
    """
    path = file or default_config()
    written, state = _written(path), _state(state_path(path))
    if file is not None and written is None and state is None:
        raise invalid(path, "it does not exist")
    return Config(path, written, state)


def default_config() -> str:
    """Return the path of the client's configuration file; it need not exist."""
    return os.path.expanduser("~/.shed/config.yaml")  # noqa: PTH111  no pathlib here


def exists(file: str | None = None) -> bool:
    """Say whether anything is configured, in the usual place or in `file`."""
    path = file or default_config()
    return os.path.exists(path) or os.path.exists(state_path(path))  # noqa: PTH110


def state_path(path: str) -> str:
    """Return where commands note things for the configuration file `path`."""
    return f"{path.removesuffix('.yaml')}.state.json"


def invalid(path: str, reason: str, *, hint: str | None = None) -> UsageError:
    """Return the error for a file that cannot be used."""
    hint = hint or "correct the file, or name another one with --config"
    return UsageError(f"cannot use the configuration {path}: {reason}", code="INVALID_CONFIG", hint=hint)


def _server(name: str, entry: dict[str, Any]) -> ServerEntry:
    address = parse(entry["url"])
    address.name = name
    return ServerEntry(name, address, int(entry.get("ssh_port") or DEFAULT_SSH_PORT))


def _state(path: str) -> dict[str, Any] | None:
    try:
        return _json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not JSON"
        raise invalid(path, reason) from None


def _written(path: str) -> dict[str, Any] | None:
    """Return what the configuration file says, from the cache if it may; None when there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    except OSError as error:
        raise invalid(path, error.strerror or str(error)) from None
    stamp = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    folder, name = os.path.split(path)
    cache = f"{folder or '.'}/.{name}.cache"
    try:
        kept = _json(cache)
        if kept["stamp"] == stamp:
            Config(path, kept["says"])  # whatever is wrong with it, the file itself is read instead
            says: dict[str, Any] = kept["says"]
            return says
    except (OSError, ValueError, KeyError, TypeError, ShedError):
        pass
    from shed.client.config_yaml import keep, read  # noqa: PLC0415  YAML takes longer than most commands

    try:
        says = read(path)
    except OSError as error:
        raise invalid(path, error.strerror or str(error)) from None
    except ValueError as error:
        raise invalid(path, str(error)) from None
    except UsageError as error:
        raise invalid(path, error.message, hint=error.hint) from None
    if abs(status.st_ctime_ns - _now_ns()) > _RACY_NS:
        keep(cache, {"stamp": stamp, "says": says})
    return says


def _now_ns() -> int:
    import time  # noqa: PLC0415

    return time.time_ns()


def _json(path: str) -> dict[str, Any]:
    """Return the JSON object in a file.  Raises `OSError` and `ValueError`."""
    with open(path, "rb", buffering=0) as file:
        data = file.readall()
    from shed.guest import wirejson  # noqa: PLC0415  for those who have a file

    value = wirejson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
