"""The certificate authority of one shed, which only that shed trusts, and what it signs.  Keys stay on the host."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from shed.errors import UsageError


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def parse(cls, document: object) -> Authority:
        """Return what `to_json` made a document of.  Raises `UsageError` (INVALID_SECRET) for others."""
        if isinstance(document, dict) and set(document) == {"certificate", "key"}:
            certificate, key = document["certificate"], document["key"]
            if isinstance(certificate, str) and isinstance(key, str):
                return cls(certificate, key)
        raise UsageError("a certificate authority is an object with certificate and key", code="INVALID_SECRET")

    def to_json(self) -> dict[str, Any]:
        """Return the document.  It has the key."""
        return {"certificate": self.certificate, "key": self.key}


FRESH = 30 * 86400
"""Seconds for which a certificate is used that was signed for a host."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The key and the certificate of one host, by a shed's authority."""

    name: str
    """The host's, or ``*.name`` for those one label below."""
    pem: str = field(repr=False)
    """Both of them."""
    made: int
    """Seconds since 1970."""

    @property
    def is_fresh(self) -> bool:
        """Whether it is still used."""
        return 0 <= time.time() - self.made < FRESH

    @classmethod
    def parse(cls, document: object) -> Leaf:
        """Return what `to_json` made a document of.  Raises `UsageError` (INVALID_SECRET) for others."""
        if isinstance(document, dict) and set(document) == {"name", "pem", "made"}:
            name, pem, made = document["name"], document["pem"], document["made"]
            if isinstance(name, str) and isinstance(pem, str) and isinstance(made, int):
                return cls(name, pem, made)
        raise UsageError("a certificate of a host is an object with name, pem and made", code="INVALID_SECRET")

    def to_json(self) -> dict[str, Any]:
        """Return the document.  It has the key."""
        return {"name": self.name, "pem": self.pem, "made": self.made}
