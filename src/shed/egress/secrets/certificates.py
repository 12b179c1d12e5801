"""Certificates of authorities: those that were added to this host, and how a guest is told of one."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shed.errors import DataError, ShedError, StorageError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, Name

log = logging.getLogger(__name__)
LOCAL_FOLDERS = (
    Path("/usr/local/share/ca-certificates"),  # Debian, Alpine
    Path("/etc/pki/ca-trust/source/anchors"),  # Fedora
    Path("/etc/ca-certificates/trust-source/anchors"),  # Arch
    Path("/etc/pki/trust/anchors"),  # SUSE
)
"""Where the administrator of a machine puts authorities of their own."""
_MOST_BYTES = 1 << 20
MOST = 100
"""Certificates in all files together."""
_UTF8, _SEQUENCE, _SET = 0x0C, 0x30, 0x31


def added_here(folders: Iterable[Path] = LOCAL_FOLDERS) -> list[Path]:
    """Return the files of authorities that were added to this host."""
    return sorted(path for folder in folders for path in folder.glob("**/*") if path.suffix in {".crt", ".pem"})


def read(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the certificates in files, as PEM.  A file that cannot be used is told in the log, and left out."""
    found: dict[str, None] = {}
    for path in paths:
        try:
            found |= dict.fromkeys(read_file(path))
        except ShedError as error:
            log.warning("%s", error)
    if len(found) > MOST:
        log.warning("there are %d extra certificates, and %d of them are used", len(found), MOST)
    return tuple(found)[:MOST]


def read_file(path: Path) -> Sequence[str]:
    """Return the certificates in a PEM file.  Raises `StorageError`, and `DataError` when there is none."""
    from cryptography import x509  # noqa: PLC0415  a tenth of a second

    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise StorageError(f"cannot read the certificates in {path}: {error.strerror}") from error
    try:
        return [_pem(certificate) for certificate in x509.load_pem_x509_certificates(data)]
    except ValueError:
        hint = "it begins with -----BEGIN CERTIFICATE-----"
        raise DataError(f"{path} has no certificates as PEM", hint=hint) from None


def for_guest(pem: str) -> dict[str, str]:
    """Return what `shed.guest.configure.request.Authority` takes."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    certificate = x509.load_pem_x509_certificate(pem.encode())
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return {"id": f"shed-{digest[:16]}", "pem": _pem(certificate), "subject": subject_hash(certificate.subject)}


def subject_hash(subject: Name) -> str:
    """Return the name by which OpenSSL looks for a certificate in a folder: `openssl x509 -subject_hash`.

    It is the beginning of the SHA-1 of the subject in a canonical form (OpenSSL's crypto/x509/x_name.c): texts as
    UTF-8 in lower case with single spaces, and without the sequence around it.
    """
    canonical = b"".join(
        _der(_SET, b"".join(sorted(_attribute(item.oid.dotted_string, item.value) for item in rdn)))
        for rdn in subject.rdns
    )
    return hashlib.sha1(canonical, usedforsecurity=False).digest()[3::-1].hex()


def _attribute(oid: str, value: str | bytes) -> bytes:
    text = value if isinstance(value, str) else value.decode(errors="replace")
    words = re.sub(r"[ \t\n\v\f\r]+", " ", text.strip(" \t\n\v\f\r"))
    lower = words.encode().translate(bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in range(256)))
    return _der(_SEQUENCE, _oid(oid) + _der(_UTF8, lower))


def _oid(dotted: str) -> bytes:
    first, second, *others = map(int, dotted.split("."))
    body = b""
    for number in (first * 40 + second, *others):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        body += bytes(reversed(digits))
    return _der(0x06, body)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _pem(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return certificate.public_bytes(Encoding.PEM).decode()
