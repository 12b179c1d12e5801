"""Certificate authorities and certificates of the tests' own, made by ``openssl``."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

HOST = "0.0.0.0"
"""This machine, for who connects to it on Linux, but none of its loopback addresses, which may be spoken to without
encryption.
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for `host`, by an authority of its own."""

    host: str
    authority: Path
    """The authority's certificate: what a client has to trust."""
    chain: Path
    key: Path


def make_certificate(folder: Path, host: str = HOST) -> Certificate:
    """Make an authority in the new folder `folder`, and a certificate of it for `host`: an IPv4 address, or a name."""
    folder.mkdir()
    certificate = Certificate(host, folder / "ca.pem", folder / "server.pem", folder / "server.key")
    own, key = (
        ("-keyout", folder / "ca.key", "-out", certificate.authority),
        ("-keyout", certificate.key, "-out", certificate.chain),
    )
    _certificate("-subj", "/CN=An authority", *own)
    kind = "IP" if host[0].isdigit() else "DNS"
    names = (
        "-subj",
        "/CN=registry",
        "-addext",
        f"subjectAltName={kind}:{host}",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    )
    _certificate(*names, "-CA", certificate.authority, "-CAkey", folder / "ca.key", *key)
    return certificate


def _certificate(*words: str | Path) -> None:
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subprocess.run(["openssl", "req", "-x509", *kind, *words], check=True, capture_output=True)
