"""The certificate authority of one shed, which only that shed trusts.  Its key stays on the host."""

from __future__ import annotations

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
