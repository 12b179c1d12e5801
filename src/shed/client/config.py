"""The client's configuration, ``~/.shed/config.yaml``: which servers there are, which one is meant, and which shed was seen where.

```yaml
default_server: lab
create_timeout: 10m
servers:
  lab: {url: "ssh://me@lab.example", ssh_port: 2222, added_at: "2026-11-24T19:00:00Z"}
  near: {host: 127.0.0.1, http_port: 8081}
sheds:                       # written by shed, so that `shed exec NAME` finds the right server
  dev: {server: lab, status: running, updated_at: "2026-11-24T19:30:00Z"}
```

These keys are ours: one that is unknown among them is refused, with the nearest known one.  Sections of other names
belong to the user, and stay as they are.  Programs change the file under a lock, after reading it again, entry by
entry.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shed.client.address import DEFAULT_PORT, Address, default_config, local, parse
from shed.config import yamltext
from shed.config.values import duration
from shed.errors import ShedError, UsageError
from shed.fsutil import atomic_write, locked, storage_errors
from shed.names import LOCAL, check_server_name

DEFAULT_SSH_PORT = 2222
_TOP = ("servers", "default_server", "sheds", "create_timeout")
_SERVER = ("url", "host", "http_port", "ssh_port", "added_at")
_SHED = ("server", "status", "updated_at")
_NEAR = 0.8
"""How like one of ours an unknown top-level key must be to be taken for a mistake instead of a section of the
user's.
"""


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """One server, as the file describes it."""

    name: str
    address: Address
    ssh_port: int = DEFAULT_SSH_PORT


@dataclass(frozen=True, slots=True)
class ShedEntry:
    """Where a shed was seen last, and how it was."""

    server: str
    status: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """What the file `path` says; the defaults when there is none."""

    path: Path
    servers: Mapping[str, ServerEntry] = field(default_factory=dict)
    default: str | None = None
    sheds: Mapping[str, ShedEntry] = field(default_factory=dict)
    create_timeout: float | None = None
    """Seconds that a create may take, unless the user says otherwise."""

    def address(self, name: str) -> Address:
        """Return the address of the server called `name`.  Raises `UsageError` (UNKNOWN_SERVER)."""
        if name == LOCAL:
            return local()
        if name not in self.servers:
            near = difflib.get_close_matches(name, [*self.servers, LOCAL], n=1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else "see `shed server list`, or name a URL: unix:///path, http://host:port, ssh://host"
            )
            raise UsageError(f"{self.path} knows no server {name!r}", code="UNKNOWN_SERVER", hint=hint)
        return self.servers[name].address

    def choose(self, name: str | None, shed: str | None) -> Address:
        """Return the address of the server called `name`.

        Without one, of where `shed` was seen, the default, or the local server.

        With `shed` and without `name` it is a guess, unless no other server is known.
        """
        if name is not None:
            return self.address(name)
        seen = self.sheds.get(shed) if shed is not None else None
        chosen = (
            seen.server
            if seen is not None and (seen.server in self.servers or seen.server == LOCAL)
            else self.default or LOCAL
        )
        address = self.address(chosen)
        address.guess = shed is not None and bool(self.servers)
        return address

    def names(self) -> list[str]:
        """Return the names of all servers, this machine's own first."""
        return [LOCAL, *self.servers]


def load(file: str | None = None) -> Config:
    """Return what the configuration says; `file` is the one to read instead of the usual one.

    Raises `UsageError` (INVALID_CONFIG).
    """
    path = Path(file or default_config())
    text = _read(path)
    if text is None:
        if file is not None:
            raise _invalid(path, "it does not exist")
        return Config(path)
    return _parse(text, path)


def add_server(
    config: Config, name: str, address: Address, *, ssh_port: int | None = None, default: bool = False
) -> None:
    """Write a server into the file, in place of one of the same name.

    With `default`, or as the first one, it becomes the default.
    """
    entry: dict[str, object] = {"url": str(address)}
    if address.host and address.ssh is None:
        entry = {"host": address.host, "http_port": address.port}
    if ssh_port is not None:
        entry["ssh_port"] = ssh_port
    entry["added_at"] = _now()

    def edit(text: str, current: Config) -> str:
        text = yamltext.put(text, ("servers", check_server_name(name)), entry)
        if default or not (current.servers or current.default):
            text = yamltext.put(text, ("default_server",), name)
        return text

    _change(config.path, edit)


def remove_server(config: Config, name: str) -> bool:
    """Take a server, and where sheds were seen on it, out of the file; return whether it was the default.

    Raises `UsageError`.
    """
    was_default = False

    def edit(text: str, current: Config) -> str:
        nonlocal was_default
        current.address(check_server_name(name))
        for shed, entry in current.sheds.items():
            if entry.server == name:
                text = yamltext.drop(text, ("sheds", shed))
        was_default = current.default == name
        if was_default:
            text = yamltext.drop(text, ("default_server",))
        return yamltext.drop(text, ("servers", name))

    _change(config.path, edit)
    return was_default


def set_default(config: Config, name: str) -> None:
    """Make a server the default.  Raises `UsageError` (UNKNOWN_SERVER)."""

    def edit(text: str, current: Config) -> str:
        current.address(name)
        return yamltext.put(text, ("default_server",), name)

    _change(config.path, edit)


def remember(config: Config, server: str | None, seen: Mapping[str, str], *, gone: Iterable[str] = ()) -> None:
    """Note that the sheds `seen`, by name and status, are on `server`, and that those `gone` are not.

    Does nothing for a server without a name, and without other servers: then there is nothing to be found.
    """
    if server is None or not config.servers:
        return

    def edit(text: str, current: Config) -> str:
        for shed, status in seen.items():
            if current.sheds.get(shed) != ShedEntry(server, status):
                text = yamltext.put(text, ("sheds", shed), {"server": server, "status": status, "updated_at": _now()})
        for shed in gone:
            entry = current.sheds.get(shed)
            if entry is not None and entry.server == server and shed not in seen:
                text = yamltext.drop(text, ("sheds", shed))
        return text

    stale = any(shed in config.sheds and config.sheds[shed].server == server and shed not in seen for shed in gone)
    if stale or any(config.sheds.get(shed) != ShedEntry(server, status) for shed, status in seen.items()):
        _change(config.path, edit)


def _change(path: Path, edit: Callable[[str, Config], str]) -> None:
    """Replace the file by what `edit` makes of its text, in one step, and with nobody else in between."""
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        text = _read(path) or ""
        try:
            changed = edit(text, _parse(text, path))
        except ValueError as error:
            raise _invalid(path, str(error)) from None
        if changed != text:
            _parse(changed, path)
            target = path.resolve()  # a link, into a folder of dot files, stays one
            atomic_write(target, changed, mode=target.stat().st_mode & 0o777 if target.exists() else 0o600)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(path, str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8") from None


def _parse(text: str, path: Path) -> Config:
    try:
        document = yamltext.load(text)
        for key in document:
            if key not in _TOP:
                near = difflib.get_close_matches(str(key), _TOP, n=1, cutoff=_NEAR)
                if near:
                    raise ValueError(f"unknown key {key!r}: did you mean {near[0]!r}?")
        servers = {name: _server(name, entry) for name, entry in _mapping(document, "servers").items()}
        sheds = {str(name): _shed(name, entry) for name, entry in _mapping(document, "sheds").items()}
        default = document.get("default_server")
        if default is not None and default != LOCAL and default not in servers:
            raise ValueError(f"default_server is {default!r}, which is none of servers")
        timeout = document.get("create_timeout")
        return Config(path, servers, default, sheds, None if timeout is None else duration(timeout))
    except (ValueError, TypeError) as error:
        raise _invalid(path, str(error)) from None
    except ShedError as error:
        raise _invalid(path, error.message, hint=error.hint) from None


def _mapping(document: dict[Any, Any], key: str) -> dict[Any, Any]:
    section = document.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{key} must hold names, and keys and values for each")
    return section


def _fields(name: str, entry: object, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} must hold keys and values")
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            more = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
            raise ValueError(f"unknown key '{name}.{key}': {more}")
    return entry


def _server(name: object, entry: object) -> ServerEntry:
    fields = _fields(f"servers.{name}", entry, _SERVER)
    url, host = fields.get("url"), fields.get("host")
    if not isinstance(name, str) or (url is None) == (host is None) or not isinstance(url or host, str):
        raise ValueError(f"servers.{name} needs either a host or a url")
    check_server_name(name)
    port = _port(fields.get("http_port", DEFAULT_PORT), f"servers.{name}.http_port")
    if url is None:
        url = f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host}:{port}"
    address = parse(url)
    address.name = name
    return ServerEntry(name, address, _port(fields.get("ssh_port", DEFAULT_SSH_PORT), f"servers.{name}.ssh_port"))


def _shed(name: object, entry: object) -> ShedEntry:
    fields = _fields(f"sheds.{name}", entry, _SHED)
    server, status = fields.get("server"), fields.get("status", "")
    if not isinstance(server, str) or not isinstance(status, str):
        raise ValueError(f"sheds.{name} needs a server")
    return ShedEntry(server, status)


def _port(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ValueError(f"{what} must be a port, from 1 to 65535")
    return value


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _invalid(path: Path, reason: str, *, hint: str | None = None) -> UsageError:
    hint = hint or "correct the file, or name another one with --config"
    return UsageError(f"cannot use the configuration {path}: {reason}", code="INVALID_CONFIG", hint=hint)
