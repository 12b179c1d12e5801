"""Certificates: the authority of a shed, and those that it signs for hosts.

This file is imported when something is signed: `cryptography` takes a tenth of a second, and most relays need it never.
"""

from __future__ import annotations

import datetime as dt
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shed.egress.secrets.authority import Authority, Leaf
from shed.errors import UsageError

_YEARS = 20
"""That an authority is valid: a shed may live long, and is told of it once."""
_DAYS = 90
"""That a certificate of a host is valid, which is used for a part of that."""
_BEFORE = dt.timedelta(days=2)
"""That a certificate is valid before it was made: a shed's clock may be behind."""


def make_authority(shed: str) -> Authority:
    """Return a new authority for the shed of that name.  Takes a few milliseconds."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "shed"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"shed {shed[:50]}"),
    ]
    subject = x509.Name(names)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, subject, key, dt.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return Authority(_signed(builder, key), _pem(key))


def make_leaf(authority: Authority, name: str) -> Leaf:
    """Return a new key for the host `name`, and its certificate.  Raises as `sign_leaf` does."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Leaf(name, _pem(key) + sign_leaf(authority, name, key, _DAYS), int(time.time()))


def sign_leaf(authority: Authority, name: str, key: ec.EllipticCurvePrivateKey, days: int) -> str:
    """Return a certificate for the host `name` and `key`, valid for so many days, as PEM.

    Raises `UsageError` (INVALID_SECRET) when the authority cannot be used.
    """
    try:
        issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
        issuer_key = load_pem_private_key(authority.key.encode(), None)
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except (ValueError, TypeError, x509.ExtensionNotFound):
        raise UsageError("the certificate authority of the shed cannot be read", code="INVALID_SECRET") from None
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise UsageError("the key of the shed's certificate authority is not ECDSA", code="INVALID_SECRET")
    # a common name has 64 characters at most; nobody reads it
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    builder = (
        _builder(subject, issuer.subject, key, dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return _signed(builder, issuer_key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + valid)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> str:
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
