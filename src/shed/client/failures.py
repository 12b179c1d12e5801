"""What a server answers instead of what was asked for, as the `ShedError` that it stands for."""

from __future__ import annotations

import json

from shed.errors import (
    BackendError,
    ConflictError,
    ConnectError,
    DataError,
    ForbiddenError,
    NotFoundError,
    ShedError,
    StorageError,
    UnauthorizedError,
    UnavailableError,
    UsageError,
)
from shed.version import VERSION

_KINDS = (
    BackendError,
    UsageError,
    UnauthorizedError,
    ForbiddenError,
    NotFoundError,
    ConflictError,
    ConnectError,
    DataError,
    UnavailableError,
    StorageError,
)
_BY_STATUS: dict[int, type[ShedError]] = {kind.http_status: kind for kind in _KINDS}


def error_of(status: int, body: bytes, *, server: str = "") -> ShedError:
    """Return the error that an answer with `status` and `body` stands for.

    `status` 0 means that the code alone must tell its kind.

    `server` is the answer's Server header: when it is of another version than this client, the hint says so.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    inner = document.get("error", document) if isinstance(document, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("message"), str):
        return UnavailableError(f"what answered, with status {status}, is not a shed server", hint="check the address")
    code, hint = inner.get("code"), inner.get("hint")
    hints = [hint] if isinstance(hint, str) and hint else []
    if server.startswith("shed/") and (warning := other_version(server.removeprefix("shed/"))):
        hints.append(warning)
    kind = _BY_STATUS.get(status) or _kind_of(str(code))
    return kind(inner["message"], hint="; ".join(hints) or None, code=code if isinstance(code, str) else None)


def other_version(version: object) -> str | None:
    """Return what to do when the server says that it is of another version than this client, else None."""
    if version == VERSION:
        return None
    return (
        f"the server is version {version}, this is {VERSION}: restart it with `shed server stop` (sheds keep running)"
    )


def _kind_of(code: str) -> type[ShedError]:
    """Return the class for an error event, which has no status: what the user got wrong is told by its code."""
    for kind in _BY_STATUS.values():
        if kind.code == code:
            return kind
    return UsageError if code.startswith("INVALID_") else ShedError
