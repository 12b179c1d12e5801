"""What registries refuse, as sentences; and faults that may be gone at the next try."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from shed.errors import NotFoundError, RegistryError, ShedError, UnavailableError
from shed.untrusted import told

WAITS = (1.0, 4.0)
"""Seconds between three tries."""
MAX_WAIT = 60.0
"""Longest wait that a registry may ask for, in seconds."""
MAX_TRIES = 100
"""Most tries of one transfer, whatever they bring: who sends a megabyte and hangs up could otherwise go on for ever."""
_PROGRESS = 1 << 20
MOST_TEXT = 300
"""Characters of a registry's text that are told."""
_T = TypeVar("_T")


class TransientError(Exception):
    """A fault that may be gone at the next try; `told` is what to say when it is not."""

    def __init__(self, told: ShedError, *, wait: float | None = None) -> None:
        super().__init__(told.message)
        self.told = told
        self.wait = wait
        """Seconds that the registry asks for."""


def retried(
    call: Callable[[], _T],
    *,
    sleep: Callable[[float], object],
    waits: Sequence[float] = WAITS,
    done: Callable[[], int] = lambda: 0,
) -> _T:
    """Return what `call` returns, calling again after a `TransientError`.

    When the waits are used up, it ends in its `ShedError`.

    `done` says how many bytes are through: a try that brought more than a megabyte starts the count of tries anew,
    within `MAX_TRIES`.
    """
    before, failures, tries = done(), 0, 0
    while True:
        try:
            return call()
        except TransientError as error:
            now = done()
            failures = 1 if now > before + _PROGRESS else failures + 1
            before, tries = now, tries + 1
            if failures > len(waits) or tries >= MAX_TRIES:
                raise error.told from None
            sleep(waits[failures - 1] if error.wait is None else min(error.wait, MAX_WAIT))


def refused(host: str, what: str, status: int, body: bytes) -> ShedError:
    """Return the error for an answer with `status` and `body` to the request for `what`."""
    host, detail = told(host, 100), _detail(body)
    said = f": {detail}" if detail else ""
    if status == 400 and b"HTTPS" in body:  # as Go's servers and nginx say it
        return RegistryError(f"{host} wants an encrypted connection", code="REGISTRY_TLS", hint="leave out --insecure")
    if status == 401:
        hint = f"log in: docker login {host}, or skopeo login {host}"
        return RegistryError(f"{host} wants credentials for {what}{said}", code="REGISTRY_UNAUTHORIZED", hint=hint)
    if status == 403:
        hint = "check the name, and what the account may do"
        return RegistryError(f"{host} does not allow access to {what}{said}", code="REGISTRY_DENIED", hint=hint)
    if status == 404:
        hint = "check the name; a registry may say so of what needs a login, too"
        return NotFoundError(f"{host} has no {what}{said}", code="NOT_IN_REGISTRY", hint=hint)
    if status == 429:
        return UnavailableError(
            f"{host} gets too many requests{said}", code="REGISTRY_BUSY", hint="wait a while, or log in"
        )
    if status >= 500:
        return UnavailableError(
            f"{host} failed with status {status} for {what}{said}", code="REGISTRY_UNAVAILABLE", hint="try again later"
        )
    return RegistryError(f"{host} refused {what} with status {status}{said}", hint="the registry may not support this")


def _detail(body: bytes) -> str:
    """Return what a registry's ``{"errors": […]}`` says, in one line in which nothing is hidden.

    Empty when it says nothing.

    All words of registries come in here.
    """
    try:
        errors = json.loads(body)["errors"]
        parts = [error.get("message") or error.get("code") for error in errors]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return ""
    return told("; ".join(" ".join(part.split()) for part in parts if isinstance(part, str)), MOST_TEXT)
