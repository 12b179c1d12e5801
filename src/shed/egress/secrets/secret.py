"""A secret that the relay puts into requests to its hosts, so that the shed never has it.

The shed has a placeholder in its place.  Where and how it is put in is said in `shed.egress.tls.swap`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from shed.egress.rules.limits import UNLIMITED, Limits
from shed.egress.rules.policy import name_fits, normal_name
from shed.errors import UsageError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_PLACEHOLDER = re.compile(r"[A-Za-z0-9_-]{16,200}")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
SHORTEST_VALUE, LONGEST_VALUE = 8, 8192
"""Characters.  A shorter one is found in answers by chance, where it is masked; a longer one fits no server's head."""
MOST_HOSTS = 100
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_TEMPLATE = re.compile(r"[ -~]{0,200}")
_NO_HEADERS = {
    "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization", "proxy-connection", "te",
    "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
"""What HTTP itself needs."""
_MEMBERS = frozenset(("name", "placeholder", "value", "hosts", "header", "methods", "paths"))


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of one shed."""

    name: str
    placeholder: str
    """What the shed has in its place: letters, digits, ``_`` and ``-``, random, another one for each shed."""
    value: str = field(repr=False)
    hosts: tuple[str, ...]
    """Names, or ``*.name`` for the subdomains of a name."""
    header: tuple[str, str] | None = None
    """The header that has the value in every request, and its text with ``{}`` in the value's place; None: the
    placeholder is replaced where the shed has put it.
    """
    limits: Limits = UNLIMITED
    """The requests that may be made to its hosts."""

    @classmethod
    def parse(cls, document: object) -> Secret:
        """Return the secret that `document` (from JSON) describes.

        Raises `UsageError` (INVALID_SECRET) that names the secret and what is wrong with it, never the value.
        """
        if not isinstance(document, dict) or not isinstance(name := document.get("name"), str):
            raise UsageError("a secret is an object with a name", code="INVALID_SECRET")
        if not _NAME.fullmatch(name):
            raise _wrong(name[:80], "its name has other characters than letters, digits, '_', '.' and '-'")
        if unknown := sorted(set(map(str, document)) - _MEMBERS):
            raise _wrong(name, f"it has no member {unknown[0]!r}")
        placeholder, value = document.get("placeholder"), document.get("value")
        if not isinstance(placeholder, str) or not _PLACEHOLDER.fullmatch(placeholder):
            raise _wrong(name, "its placeholder is not 16 to 200 letters, digits, '_' and '-'")
        check_value(name, value)
        assert isinstance(value, str)
        if placeholder in value:
            raise _wrong(name, "its placeholder is a part of its value")
        try:
            limits = Limits.parse(document.get("methods"), document.get("paths"))
        except ValueError as error:
            raise _wrong(name, str(error)) from None
        hosts, header = parse_hosts(name, document.get("hosts")), parse_header(name, document.get("header"))
        return cls(name, placeholder, value, hosts, header, limits)

    def to_json(self) -> dict[str, Any]:
        """Return what `parse` reads.  It has the value."""
        known = {
            "name": self.name,
            "placeholder": self.placeholder,
            "value": self.value,
            "hosts": list(self.hosts),
            **self.limits.to_json(),
        }
        return known if self.header is None else {**known, "header": list(self.header)}

    def is_for(self, host: str) -> bool:
        """Say whether the value may go to the host of that name, which is normal (`normal_name`)."""
        return any(name_fits(pattern, host) for pattern in self.hosts)


def check_value(name: str, value: object) -> None:
    """Raise `UsageError` (INVALID_SECRET) for a value that cannot be sent in a header."""
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise _wrong(name, "its value is not one line of printable ASCII without spaces around it")
    if not SHORTEST_VALUE <= len(value) <= LONGEST_VALUE:
        raise _wrong(name, f"its value does not have {SHORTEST_VALUE} to {LONGEST_VALUE} characters")


def parse_hosts(name: str, value: object) -> tuple[str, ...]:
    """Return the hosts of the secret `name`, in their normal spelling.  Raises `UsageError` (INVALID_SECRET)."""
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_HOSTS:
        raise _wrong(name, f"hosts is not a list of 1 to {MOST_HOSTS} names")
    return tuple(_host(name, host) for host in value)


def parse_header(name: str, value: object) -> tuple[str, str] | None:
    """Return the header of the secret `name` and its template.  Raises `UsageError` (INVALID_SECRET)."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(isinstance(part, str) for part in value):
        raise _wrong(name, "header is not a name and a text")
    header, template = value
    if not _HEADER.fullmatch(header) or header.lower() in _NO_HEADERS:
        raise _wrong(name, f"{header[:80]!r} is not a header that can be set")
    if not _TEMPLATE.fullmatch(template) or template.count("{}") != 1 or template != template.strip():
        raise _wrong(name, "the text of its header is not one line of ASCII with one {} for the value")
    return header, template


def _host(name: str, host: object) -> str:
    if isinstance(host, str) and host.isascii():
        prefix, rest = ("*.", host[2:]) if host.startswith("*.") else ("", host)
        try:
            normal = normal_name(rest)
        except ValueError:
            normal = ""
        if normal and (not prefix or "." in normal):
            return prefix + normal
    raise _wrong(name, f"{str(host)[:80]!r} is neither the name of a host nor *.name")


def _wrong(name: str, what: str) -> UsageError:
    return UsageError(f"secret {name}: {what}", code="INVALID_SECRET")
