"""The client's configuration, ``~/.shed/config.yaml``: which servers there are, and which one is meant.

```yaml
default_server: lab
servers:
  lab: {host: lab.example, http_port: 8080}
```
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from shed.client.address import DEFAULT_PORT, default_config
from shed.errors import UsageError


def server_url(name: str | None, file: str | None) -> str | None:
    """Return the URL of the server called `name`, or of the default one; None when the file names no default.

    `file` is the configuration to read instead of the usual one.  Raises `UsageError` (UNKNOWN_SERVER, INVALID_CONFIG).
    """
    path = Path(file or default_config())
    config = _read(path, needed=file is not None)
    servers = config.get("servers") or {}
    wanted = name or config.get("default_server")
    if wanted is None:
        return None
    if not isinstance(servers, dict) or not isinstance(wanted, str):
        raise _invalid(path, "servers must hold names and their hosts, and default_server one of the names")
    if wanted not in servers:
        near = difflib.get_close_matches(wanted, [str(server) for server in servers], n=1)
        hint = f"did you mean {near[0]}?" if near else "name a URL (unix:///path, http://host:port), or add the server to the file"
        raise UsageError(f"{path} knows no server {wanted!r}", code="UNKNOWN_SERVER", hint=hint)
    entry = servers[wanted]
    if not isinstance(entry, dict) or not isinstance(entry.get("host"), str):
        raise _invalid(path, f"servers.{wanted}.host is missing")
    host, port = entry["host"], entry.get("http_port", DEFAULT_PORT)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_names(file: str | None) -> list[str]:
    """Return the names of all servers; `file` is the configuration to read instead of the usual one.  Raises `UsageError`."""
    path = Path(file or default_config())
    servers = _read(path, needed=file is not None).get("servers") or {}
    if not isinstance(servers, dict) or not servers:
        raise UsageError(f"{path} names no servers", code="UNKNOWN_SERVER", hint="add some to the file, or leave out --all")
    return [str(name) for name in servers]


def _read(path: Path, *, needed: bool) -> dict[str, Any]:
    import yaml  # noqa: PLC0415  it takes longer to import than most commands take to run

    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        if needed:
            raise _invalid(path, "it does not exist") from None
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _invalid(path, " ".join(str(error).split())) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise _invalid(path, "it must hold keys and values")
    return document


def _invalid(path: Path, reason: str) -> UsageError:
    return UsageError(f"cannot use the configuration {path}: {reason}", code="INVALID_CONFIG", hint="name another file with --config")
