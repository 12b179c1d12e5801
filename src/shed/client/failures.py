"""What a server answers instead of what was asked for, as the `ShedError` that it stands for."""

from __future__ import annotations

from shed.errors import ShedError, UnavailableError, heard
from shed.guest import wirejson
from shed.version import VERSION


def error_of(status: int, body: bytes, *, server: str = "") -> ShedError:
    """Return the error that an answer with `status` and `body` stands for.

    `status` is 0 when it is not known.

    `server` is the answer's Server header: when it is of another version than this client, the hint says so.
    """
    try:
        document = wirejson.loads(body)
    except (ValueError, RecursionError):
        document = None
    inner = document.get("error", document) if isinstance(document, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("message"), str):
        return UnavailableError(f"what answered, with status {status}, is not a shed server", hint="check the address")
    code, hint = inner.get("code"), inner.get("hint")
    hints = [hint] if isinstance(hint, str) and hint else []
    if server.startswith("shed/") and (warning := other_version(server.removeprefix("shed/"))):
        hints.append(warning)
    told = code if isinstance(code, str) else "INTERNAL"
    return heard(inner["message"], code=told, status=status, hint="; ".join(hints) or None)


def other_version(version: object) -> str | None:
    """Return what to do when the server says that it is of another version than this client, else None."""
    if version == VERSION:
        return None
    return (
        f"the server is version {version}, this is {VERSION}: restart it with `shed server stop` (sheds keep running)"
    )
