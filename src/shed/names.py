"""Rules for what users choose: names, and the size of a shed."""

from __future__ import annotations

from shed.errors import UsageError

_LOWER, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
_WORD = _LOWER + _LOWER.upper() + _DIGITS
MIN_IDLE, MAX_IDLE = 10, 7 * 86400
"""Least and most seconds of idleness after which a shed may be suspended."""
MAX_AWAKE, MAX_REASON = 86400, 200
"""Most seconds for which one request keeps a shed awake, and characters of what for."""
MIN_UPPER, MAX_UPPER = 1 << 30, 100 << 30
"""Least and most bytes of a shed's writable layer."""
MIN_MEMORY_MB, MAX_MEMORY_MB, MAX_CPUS = 128, 1 << 20, 64
"""Least and most MiB of a shed's memory, and most of its processors."""
MAX_NAME = 63
"""Longest shed name: it becomes a host name, one DNS label."""
MAX_TAG = 128
"""Longest image tag, as in the OCI distribution specification."""
LOCAL = "local"
"""The name that clients use for this user's own server on this machine."""


def check_shed_name(name: str) -> str:
    """Return `name` when it can name a shed; raise `UsageError` (INVALID_SHED_NAME) otherwise."""
    right = len(name) <= MAX_NAME and _made_of(name, _LOWER + _DIGITS + "-", first=_LOWER, last=_LOWER + _DIGITS)
    hint = (
        f"use lower-case letters, digits and '-', start with a letter, end with a letter or digit, {MAX_NAME} at most"
    )
    return _checked(name, right, "invalid shed name", code="INVALID_SHED_NAME", hint=hint)


def check_image_name(name: str) -> str:
    """Return `name` when it can name an image in the local store; raise `UsageError` (INVALID_IMAGE_NAME) otherwise."""
    right = len(name) <= MAX_TAG and _made_of(name, _WORD + "._-", first=_WORD + "_")
    hint = "use letters, digits, '.', '_' and '-', and start with a letter, digit or '_'"
    return _checked(name, right, "invalid image name", code="INVALID_IMAGE_NAME", hint=hint)


def check_server_name(name: str) -> str:
    """Return `name` when it can name a server; raise `UsageError` (INVALID_SERVER_NAME) otherwise.

    ``local`` is reserved for this user's own server.
    """
    right = len(name) <= MAX_NAME and _made_of(name, _WORD + "._-", first=_WORD) and name != LOCAL
    hint = (
        f"use letters, digits, '.', '_' and '-', start with a letter or digit, {MAX_NAME} at most; 'local' is this "
        "machine's own"
    )
    return _checked(name, right, "invalid server name", code="INVALID_SERVER_NAME", hint=hint)


def check_snapshot_name(name: str) -> str:
    """Return `name` when it can name a snapshot; raise `UsageError` (INVALID_SNAPSHOT_NAME) otherwise."""
    right = len(name) <= MAX_NAME and _made_of(name, _WORD + "._-", first=_WORD)
    hint = f"use letters, digits, '.', '_' and '-', start with a letter or digit, {MAX_NAME} at most"
    return _checked(name, right, "invalid snapshot name", code="INVALID_SNAPSHOT_NAME", hint=hint)


def check_session_name(name: str) -> str:
    """Return `name` when it can name a session in a shed; raise `UsageError` (INVALID_SESSION_NAME) otherwise."""
    right = len(name) <= MAX_NAME and _made_of(name, _WORD + "_-", first=_WORD)
    hint = f"use letters, digits, '_' and '-', start with a letter or digit, {MAX_NAME} at most"
    return _checked(name, right, "invalid session name", code="INVALID_SESSION_NAME", hint=hint)


def check_token_name(name: str) -> str:
    """Return `name` when it can name a token; raise `UsageError` (INVALID_TOKEN_NAME) otherwise.

    ``local`` is reserved for the server's own token.
    """
    right = len(name) <= MAX_NAME and _made_of(name, _WORD + "._-", first=_WORD) and name != LOCAL
    hint = (
        f"use letters, digits, '.', '_' and '-', start with a letter or digit, {MAX_NAME} at most; 'local' is the "
        "server's own"
    )
    return _checked(name, right, "invalid token name", code="INVALID_TOKEN_NAME", hint=hint)


def _made_of(name: str, characters: str, *, first: str, last: str | None = None) -> bool:
    """Say whether `name` has only `characters`, and begins and ends with the right ones.

    No regular expression: `shed exec` imports this file, and does without `re`.
    """
    return (
        name[:1] in first
        and name[-1:] in (last or characters)
        and bool(name)
        and all(character in characters for character in name)
    )


def _checked(name: str, right: bool, wrong: str, *, code: str, hint: str) -> str:
    if right:
        return name
    raise UsageError(f"{wrong} {name!r}", code=code, hint=hint)
