"""Reading ``~/.shed/config.yaml``, which a person writes.

```yaml
default_server: lab
create_timeout: 10m
dotfiles: me/dotfiles
servers:
  lab: {url: "ssh://me@lab.example", ssh_port: 2222}
  near: {host: 127.0.0.1, http_port: 8081}
```

These keys are ours: one that is unknown among them is refused, with the nearest known one.  Sections of other names
belong to the user.  Earlier versions wrote into this file: ``added_at`` of servers, and ``sheds``, which says where
sheds were seen; both are still understood.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from pathlib import Path
from typing import Any

import yaml

from shed.client.address import DEFAULT_PORT, DEFAULT_SSH_PORT, parse
from shed.config.values import duration
from shed.errors import ShedError
from shed.fsutil import atomic_write
from shed.names import check_server_name

_TOP = ("servers", "default_server", "sheds", "create_timeout", "dotfiles")
_SERVER = ("url", "host", "http_port", "ssh_port", "added_at")
_SHED = ("server", "status", "updated_at")
_NEAR = 0.8
"""How like one of ours an unknown top-level key must be to be taken for a mistake instead of a section of the user's.
"""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would take the last, and ignore the others."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"{key} is there twice")
        return super().construct_mapping(node, deep)


def read(path: str) -> dict[str, Any]:
    """Return what the file says, as JSON can hold it.

    ``servers`` by name, with ``url`` and ``ssh_port``; ``sheds`` by name, with ``server`` and ``status``;
    ``default_server`` and ``dotfiles`` or None; ``create_timeout`` in seconds or None.  Raises `ValueError`, and
    `UsageError` for an address or a name that is none, each with one line that says why; `OSError` when it cannot be
    read.
    """
    try:
        return _parse(_load(Path(path).read_text(encoding="utf-8")))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except TypeError as error:  # a list as a key
        raise ValueError(str(error)) from None


def keep(cache: str, value: dict[str, Any]) -> None:
    """Write the cache, where that is possible."""
    with contextlib.suppress(OSError, ShedError):
        atomic_write(Path(cache), json.dumps(value), mode=0o600)


def _load(text: str) -> dict[Any, Any]:
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  it is a safe one
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError("it must hold keys and values")
    return document


def _parse(document: dict[Any, Any]) -> dict[str, Any]:
    for key in document:
        if key not in _TOP:
            near = difflib.get_close_matches(str(key), _TOP, n=1, cutoff=_NEAR)
            if near:
                raise ValueError(f"unknown key {key!r}: did you mean {near[0]!r}?")
    servers = {name: _server(name, entry) for name, entry in _mapping(document, "servers").items()}
    default = document.get("default_server")
    if default is not None and not isinstance(default, str):
        raise ValueError(f"default_server is {default!r}, which is none of servers")
    timeout, dotfiles = document.get("create_timeout"), document.get("dotfiles")
    if dotfiles is not None and (not isinstance(dotfiles, str) or not dotfiles):
        raise ValueError("dotfiles must be the URL of a repository, or OWNER/NAME")
    return {
        "servers": servers,
        "sheds": {str(name): _shed(name, entry) for name, entry in _mapping(document, "sheds").items()},
        "default_server": default,
        "dotfiles": dotfiles,
        "create_timeout": None if timeout is None else duration(timeout),
    }


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


def _server(name: object, entry: object) -> dict[str, Any]:
    fields = _fields(f"servers.{name}", entry, _SERVER)
    url, host = fields.get("url"), fields.get("host")
    if not isinstance(name, str) or (url is None) == (host is None) or not isinstance(url or host, str):
        raise ValueError(f"servers.{name} needs either a host or a url")
    check_server_name(name)
    port = _port(fields.get("http_port", DEFAULT_PORT), f"servers.{name}.http_port")
    if url is None:
        url = f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host}:{port}"
    parse(url)
    return {"url": url, "ssh_port": _port(fields.get("ssh_port", DEFAULT_SSH_PORT), f"servers.{name}.ssh_port")}


def _shed(name: object, entry: object) -> dict[str, Any]:
    fields = _fields(f"sheds.{name}", entry, _SHED)
    server, status = fields.get("server"), fields.get("status", "")
    if not isinstance(server, str) or not isinstance(status, str):
        raise ValueError(f"sheds.{name} needs a server")
    return {"server": server, "status": status}


def _port(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ValueError(f"{what} must be a port, from 1 to 65535")
    return value
