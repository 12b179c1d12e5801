"""Which images podman and buildah may take for a Containerfile that is not the user's own: those of registries.

A name such as ``oci:/home/me/x`` or ``docker-archive:/x.tar`` means files of this machine to them, and so do
``containers-storage:[…]`` and their like.  Their policy of signatures is asked before any image is taken from anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shed.errors import DataError
from shed.fsutil import storage_errors

_FILES = ("~/.config/containers/policy.json", "/etc/containers/policy.json", "/usr/share/containers/policy.json")
"""The first that is there counts, as for them."""
_REJECT = [{"type": "reject"}]
_ACCEPT = [{"type": "insecureAcceptAnything"}]


def write_policy(folder: Path, layouts: Path | None, storage: str) -> Path:
    """Write to `folder` what allows registries as far as this user's policy does, and our layouts below `layouts`.

    podman takes what it has built from `storage`, where its images are.  Without a policy of the user, registries are
    not allowed.  Raises `DataError` for one that cannot be read.
    """
    own = _own()
    transports = own.get("transports") or {}
    registries = {"": own.get("default", _REJECT), **transports.get("docker", {})}
    allowed: dict[str, Any] = {"docker": registries, "containers-storage": {f"[{storage}]": _ACCEPT}}
    if layouts is not None:
        allowed["oci"] = {str(layouts.resolve()): _ACCEPT}
    path = folder / "policy.json"
    with storage_errors(path):
        path.write_text(json.dumps({"default": _REJECT, "transports": allowed}))
    return path


def _own() -> dict[str, Any]:
    for name in _FILES:
        path = Path(name).expanduser()
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}", hint="mend it: podman and buildah read it, too") from None
        if not isinstance(found, dict):
            raise DataError(f"{path} holds no object", hint="mend it: podman and buildah read it, too")
        return found
    return {}
