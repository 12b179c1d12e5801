"""Authorities that were added to the host, and how a guest is told of them."""

import logging
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from shed.egress.secrets import certificates
from shed.egress.secrets.signing import make_authority


def test_all_that_were_added_are_found(tmp_path: Path) -> None:
    """In folders below, too, several in a file, each once."""
    one, two = make_authority("one").certificate, make_authority("two").certificate
    (tmp_path / "company").mkdir()
    (tmp_path / "company/both.crt").write_text(f"# of the company\n{one}{two}")
    (tmp_path / "again.pem").write_text(two)
    (tmp_path / "notes.txt").write_text("no certificate")
    assert set(certificates.read(certificates.added_here([tmp_path, tmp_path / "none"]))) == {one, two}


def test_a_file_that_cannot_be_used_is_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The others count."""
    one = make_authority("one").certificate
    (tmp_path / "one.pem").write_text(one)
    (tmp_path / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with caplog.at_level(logging.WARNING):
        assert certificates.read([tmp_path / "none.pem", tmp_path / "damaged.pem", tmp_path / "one.pem"]) == (one,)
    assert "none.pem" in caplog.text
    assert "damaged.pem has no certificates" in caplog.text


@pytest.mark.parametrize(
    "subject",
    [
        "/C=DE/O=Company/CN=Root",
        "/O=  Two   Spaces \t/CN=MIXED case ÄÖ",
        "/CN=one+OU=several+O=values",
        "/DC=example/DC=corp/CN=ia5",
        "/emailAddress=ca@example.com/serialNumber=00 1",
    ],
)
def test_openssl_computes_the_same_hash_of_a_subject(tmp_path: Path, subject: str) -> None:
    """Whatever its texts and their kinds."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-utf8", "-multivalue-rdn", "-subj", subject, "-keyout", str(tmp_path / "key")]
    command += ["-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-subject_hash", "-in", tmp_path / "cert.pem"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    pem = (tmp_path / "cert.pem").read_text()
    assert certificates.for_guest(pem)["subject"] == said.stdout.strip()
    assert certificates.subject_hash(x509.load_pem_x509_certificate(pem.encode()).subject) == said.stdout.strip()
