"""Java's key stores of trusted authorities: each Java that is in the image has one, and looks nowhere else.

Two formats are read: JKS (Java's own; a version, entries, and a SHA-1 of it all), and PKCS #12 that is not encrypted,
which Java 18 and later have.  What is written is JKS, which every Java reads.  A store with a password of its own is
left as it is.
"""

from __future__ import annotations

import binascii
import os
import struct
from struct import pack, unpack_from

from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.request import Authority

    Entries = list[tuple[str, bytes]]

_STORES = (
    "etc/ssl/certs/java/cacerts",
    "etc/pki/ca-trust/extracted/java/cacerts",
    "var/lib/ca-certificates/java-cacerts",
    "usr/lib/jvm/*/lib/security/cacerts",
    "usr/lib/jvm/*/jre/lib/security/cacerts",
    "usr/local/openjdk-*/lib/security/cacerts",
    "opt/*/lib/security/cacerts",
    "opt/java/*/lib/security/cacerts",
    "home/*/.sdkman/candidates/java/*/lib/security/cacerts",
)
_JKS, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_PASSWORD = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"
"""What every Java has, and what JKS puts behind it before it is hashed."""
_CERTIFICATE = bytes.fromhex("060a2a864886f70d01091601")
"""The object identifier of an X.509 certificate in PKCS #12 (RFC 7292, section 4.2.3)."""
_ENCRYPTED = bytes.fromhex("06092a864886f70d010706")
_MOST = 16 << 20


def edit(wanted: list[Authority], gone: list[Authority], root: str = "") -> None:
    """Have each Java of the image trust `wanted`, and not `gone`.  Raises `OSError`."""
    paths = {os.path.realpath(path) for pattern in _STORES for path in _matches(root, pattern)}
    for path in sorted(paths):
        if not os.path.isfile(path) or os.path.getsize(path) > _MOST:
            continue
        with open(path, "rb", buffering=0) as file:
            before = file.read()
        entries = read(before)
        if entries is None:
            continue
        ours = {_der(each.pem) for each in (*wanted, *gone)}
        after = [(alias, der) for alias, der in entries if der not in ours]
        after += [(each.id, _der(each.pem)) for each in wanted]
        if after != entries:
            steps.write_file(path, write(after))


def read(store: bytes) -> Entries | None:
    """Return alias and certificate of each entry; None for what is not understood."""
    try:
        return _read_jks(store) if store[:4] == pack(">I", _JKS) else _read_pkcs12(store)
    except (struct.error, IndexError, UnicodeDecodeError):
        return None


def write(entries: Entries) -> bytes:
    """Return a JKS of these entries."""
    body = pack(">III", _JKS, _VERSION, len(entries))
    for alias, der in entries:
        name = alias.encode()
        body += pack(">IH", _TRUSTED, len(name)) + name + pack(">QH", 0, 5) + b"X.509" + pack(">I", len(der)) + der
    return _sealed(body)


def _sealed(body: bytes) -> bytes:
    """Return a JKS with the hash behind it."""
    from _sha1 import sha1  # type: ignore[import-not-found]

    return body + bytes(sha1(_PASSWORD + body).digest())


def _read_jks(store: bytes) -> Entries | None:
    if _sealed(store[:-20]) != store:
        return None
    entries: Entries = []
    at = 12
    _, version, count = unpack_from(">III", store)
    for _ in range(count):
        tag, size = unpack_from(">IH", store, at)
        if tag != _TRUSTED or version != _VERSION:
            return None
        at += 6
        alias = store[at : at + size].decode()
        at += size + 8
        at += 2 + unpack_from(">H", store, at)[0]
        (size,) = unpack_from(">I", store, at)
        entries.append((alias, store[at + 4 : at + 4 + size]))
        at += 4 + size
    return entries


def _read_pkcs12(store: bytes) -> Entries | None:
    """Find the certificates: behind each object identifier, [0] with an octet string with one in it."""
    if store[:1] != b"\x30" or _ENCRYPTED in store:
        return None
    entries: Entries = []
    at = 0
    while (at := store.find(_CERTIFICATE, at)) >= 0:
        at += len(_CERTIFICATE)
        _, inner = _der_value(store, at)
        size, start = _der_value(store, inner)
        entries.append((f"certificate-{len(entries)}", store[start : start + size]))
        at = start + size
    return entries or None


def _der_value(data: bytes, at: int) -> tuple[int, int]:
    """Return the length of the DER value at `at`, and where it begins."""
    length = data[at + 1]
    if length < 0x80:
        return length, at + 2
    count = length & 0x7F
    return int.from_bytes(data[at + 2 : at + 2 + count], "big"), at + 2 + count


def _der(pem: str) -> bytes:
    return binascii.a2b_base64("".join(line for line in pem.splitlines() if not line.startswith("-")))


def _matches(root: str, pattern: str) -> list[str]:
    """Return the paths below `root` that a pattern fits; a `*` stands for a whole name, or its end."""
    paths = [root]
    for part in pattern.split("/"):
        if not part.endswith("*"):
            paths = [f"{path}/{part}" for path in paths]
            continue
        paths = [
            f"{path}/{name}" for path in paths for name in _listdir(f"{path}/") if name.startswith(part.rstrip("*"))
        ]
    return [path for path in paths if os.path.exists(path)]


def _listdir(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
