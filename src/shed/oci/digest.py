"""Content digests: ``sha256:`` and 64 lower-case hex digits, and nothing else."""

from __future__ import annotations

import hashlib
import os
import re
from typing import NewType

from shed.errors import DataError

Digest = NewType("Digest", str)
"""A string that `parse_digest` has accepted, so its hex part is safe as a file name."""

SHORT_HEX = 12
"""Hex digits of a digest as shown to people, and the fewest that a user may abbreviate one to."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20


def parse_digest(text: object) -> Digest:
    """Return `text` as a digest; raise `DataError` when it is not one."""
    if isinstance(text, str) and _DIGEST.fullmatch(text):
        return Digest(text)
    shown = repr(text)
    raise DataError(f"invalid digest {shown[:100]}", hint="a digest is `sha256:` and 64 lower-case hex digits")


def is_digest(text: str) -> bool:
    """Tell whether `text` is a complete digest."""
    return _DIGEST.fullmatch(text) is not None


def hex_of(digest: str) -> str:
    """Return the 64 hex digits of `digest`."""
    return digest[len("sha256:") :]


def short(digest: str) -> str:
    """Return `digest` as shown to people: ``sha256:`` and 12 hex digits."""
    return digest[: len("sha256:") + SHORT_HEX]


def from_hex(hexadecimal: str) -> Digest:
    """Return the digest with these 64 hex digits."""
    return parse_digest("sha256:" + hexadecimal)


def digest_bytes(data: bytes) -> Digest:
    """Return the digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_fd(fd: int) -> Digest:
    """Return the digest of everything in the open file `fd`, whatever its position."""
    sha = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        sha.update(view[:count])
        offset += count
    return Digest("sha256:" + sha.hexdigest())


def mismatch(what: str, wanted: str, got: str) -> DataError:
    """Return the error for bytes that do not have the digest they should have."""
    return DataError(
        f"{what}: digest mismatch: wanted {wanted}, got {got}",
        code="DIGEST_MISMATCH",
        hint="the data is damaged: get it again",
    )
