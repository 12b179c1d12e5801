"""Values in place of placeholders in a request, and out of its answer again.

Pure: heads of requests and parts of answers come in and go out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from shed.egress.secrets.secret import Secret

Headers = list[tuple[bytes, bytes]]
_PRINTABLE = bytes(range(0x20, 0x7F))
"""What values are made of."""


class Misplaced(Exception):  # noqa: N818  it is a verdict
    """A placeholder is where its value must not go; says why in a sentence."""


@dataclass(slots=True)
class Swap:
    """What is put into one request to a host."""

    mine: Sequence[Secret]
    """Those that may go into it."""
    others: Sequence[Secret]
    """The shed's others: a placeholder of theirs has no business here."""
    used: dict[str, None] = field(default_factory=dict)
    """Names of those that were put in."""
    sent: set[bytes] = field(default_factory=set)
    """In which other spellings than their own the values were sent."""

    def headers(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return the headers as they are sent.  Raises `Misplaced`."""
        fixed = {secret.header[0].lower().encode(): secret for secret in reversed(self.mine) if secret.header}
        swapped = [(name, self._header(name, value)) for name, value in headers if name.lower() not in fixed]
        for secret in fixed.values():
            assert secret.header is not None
            name, template = secret.header
            swapped.append((name.encode(), template.replace("{}", secret.value).encode()))
            self.used[secret.name] = None
        return swapped

    def query(self, query: bytes) -> bytes:
        """Return a query as it is sent: members that have no placeholder stay as they are.  Raises `Misplaced`."""
        return b"&".join(b"=".join(map(self._escaped, member.split(b"=", 1))) for member in query.split(b"&"))

    def _header(self, name: bytes, value: bytes) -> bytes:
        if name.lower() == b"authorization" and value[:6].lower() == b"basic ":
            try:
                plain = base64.b64decode(value[6:].strip(), validate=True)
            except binascii.Error:
                plain = b""
            if (swapped := self._plain(plain)) != plain:
                token = base64.b64encode(swapped)
                self.sent.add(token)
                return b"Basic " + token
        return self._plain(value)

    def _escaped(self, text: bytes) -> bytes:
        plain = unquote_to_bytes(text.replace(b"+", b" "))
        if (swapped := self._plain(plain)) == plain:
            return text
        return quote(swapped, safe="").encode()

    def _plain(self, text: bytes) -> bytes:
        for secret in self.others:
            if secret.placeholder.encode() in text:
                raise Misplaced(f"the secret {secret.name} is not for this request")
        for secret in self.mine:
            if (placeholder := secret.placeholder.encode()) not in text:
                continue
            if secret.header is not None:
                raise Misplaced(f"the secret {secret.name} is sent in the header {secret.header[0]} alone")
            text = text.replace(placeholder, secret.value.encode())
            self.used[secret.name] = None
            self.sent.add(quote(secret.value, safe="").encode())
        return text


def unswapped(value: bytes, secrets: Iterable[Secret]) -> bytes:
    """Return a header of an answer with placeholders in place of values: a client that follows it gets back there."""
    for secret in secrets:
        for spelling in (secret.value, quote(secret.value, safe="")):
            value = value.replace(spelling.encode(), secret.placeholder.encode())
    return value


class Mask:
    """Stars in place of `values` in a stream, which stays as long as it is.

    A value may come in two parts, so printable characters at the end of what came are held back.  Whether some are does
    not depend on the values: by waiting, a guest whose text a server sends back could guess one letter by letter.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        self._values = sorted(set(values), key=len, reverse=True)
        self._most = len(self._values[0]) - 1 if self._values else 0
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be passed on."""
        data = self.held + data
        for value in self._values:
            data = data.replace(value, b"*" * len(value))
        end = data[len(data) - min(self._most, len(data)) :]
        passed = len(data) - len(end) + len(end.rstrip(_PRINTABLE))
        self.held = data[passed:]
        return data[:passed]

    def end(self) -> bytes:
        """Return the rest."""
        held, self.held = self.held, b""
        return held
