"""Which requests to a host are meant: by their methods and paths.

A path is compared when its spelling is settled: characters that need no escape are unescaped.  Where servers disagree
on what a path means (`..`, an escaped slash, an empty segment), it fits no pattern: who limits paths gets no second
reading of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

MOST = 100
"""Methods or paths of one limit."""
MOST_PATTERN = 1000
"""Characters of a path."""
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_NEVER = ("CONNECT", "TRACE")
_PATTERN = re.compile(r"/[!-~]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_UNCLEAR = re.compile(r"//|\\|%2F|%5C|%25|%0|%1|%7F|%(?![0-9A-F]{2})|[^!-~]|[#?]")
"""Empty segments, escaped separators, controls, escapes of escapes, and what is no path."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Methods and paths; what is None is not limited."""

    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    """Patterns: ``*`` is any characters, ``/`` too; behind a ``?``, members that the query has exactly once."""

    @classmethod
    def parse(cls, methods: object, paths: object) -> Limits:
        """Return the limits that lists from YAML or JSON describe.  Raises `ValueError` with a sentence."""
        for method in (found := _list("methods", methods) or ()):
            if not _METHOD.fullmatch(method) or method in _NEVER:
                raise ValueError(f"{method[:40]!r} is not a method that can be allowed: write GET, POST and so on")
        patterns = _list("paths", paths)
        for pattern in patterns or ():
            _check_pattern(pattern)
        return cls(found or None, patterns)

    def to_json(self) -> dict[str, Any]:
        """Return the members that are limited."""
        known = {"methods": self.methods, "paths": self.paths}
        return {name: list(value) for name, value in known.items() if value is not None}

    def __str__(self) -> str:
        """Return them as people read them, such as ``GET,HEAD /repos/me/*``; empty when nothing is limited."""
        return " ".join(",".join(part) for part in (self.methods, self.paths) if part is not None)

    def fit(self, method: str, target: str) -> bool:
        """Say whether a request with `method` for `target` (a path, and if need be a query) is meant."""
        if self.methods is not None and method not in self.methods:
            return False
        if self.paths is None:
            return True
        path, _, query = target.partition("?")
        settled = settled_path(path)
        return settled is not None and any(_fits(pattern, settled, query) for pattern in self.paths)


UNLIMITED = Limits()


def settled_path(path: str) -> str | None:
    """Return a path in the one spelling that is compared; None when servers may differ on what it means."""

    def unescaped(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _PLAIN else match[0].upper()

    settled = _ESCAPE.sub(unescaped, path)
    if not settled.startswith("/") or _UNCLEAR.search(settled):
        return None
    segments = [segment.partition(";")[0] for segment in settled.split("/")[1:]]
    if any(segment in {".", ".."} for segment in segments) or "" in segments[:-1] or settled.endswith("/;"):
        return None
    return settled


def _list(what: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str) or not 0 < len(value) <= MOST:
        raise ValueError(f"{what} is not a list of 1 to {MOST}")
    if not all(isinstance(item, str) for item in value):
        raise ValueError(f"{what} has something that is not a string")
    return tuple(value)


def _check_pattern(pattern: str) -> None:
    path, mark, query = pattern.partition("?")
    if not _PATTERN.fullmatch(pattern) or len(pattern) > MOST_PATTERN or settled_path(path) != path:
        raise ValueError(f"{pattern[:80]!r} is not a path such as /repos/me/*, without '..', '//' and needless escapes")
    if mark and not all(name and value for name, _, value in (member.partition("=") for member in query.split("&"))):
        raise ValueError(f"{pattern[:80]!r} has a query that is not NAME=VALUE&…")


def _fits(pattern: str, path: str, query: str) -> bool:
    wanted, mark, members = pattern.partition("?")
    if not _is_like(wanted, path):
        return False
    return not mark or all(_has(query, *member.split("=", 1)) for member in members.split("&"))


def _has(query: str, name: str, value: str) -> bool:
    """Say whether a query has a member once, with this value, whichever way it is taken apart."""
    if ";" in query:
        return False
    pairs = [tuple(map(unquote_plus, member.partition("=")[::2])) for member in query.split("&")]
    return [found for key, found in pairs if key.lower() == name.lower()] == [value]


def _is_like(pattern: str, path: str) -> bool:
    """Say whether a path is like a pattern.  Its time is linear in the path's length: a guest writes that."""
    first, *between = pattern.split("*")
    if not between:
        return path == pattern
    last = between.pop()
    if not (path.startswith(first) and path.endswith(last)):
        return False
    at, end = len(first), len(path) - len(last)
    for part in between:
        if (found := path.find(part, at, end)) < 0:
            return False
        at = found + len(part)
    return at <= end
