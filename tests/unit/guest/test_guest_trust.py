"""Authorities that the host wants trusted, in roots like those of the distributions."""

import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shed.egress.secrets.certificates import for_guest
from shed.egress.secrets.signing import make_authority
from shed.guest import configure
from shed.guest.configure import keystores, trust
from shed.guest.configure.request import Authority, Request

THEIRS = make_authority("their own").certificate
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
"""Debian's and Alpine's."""


def authority(name: str) -> Authority:
    """Return a new authority, as the host tells of it."""
    return Authority(for_guest(make_authority(name).certificate))


def tree(root: Path) -> dict[str, bytes]:
    """Return all files and links below a folder, but the record of what was done."""
    return {
        str(path.relative_to(root)): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != "authorities.json"
    }


def image(root: Path, bundle: str = BUNDLE) -> Path:
    """Make a root that has a bundle."""
    path = root / bundle
    path.parent.mkdir(parents=True)
    path.write_text(THEIRS)
    return path


@pytest.mark.parametrize(
    ("bundle", "source"),
    [
        (BUNDLE, "usr/local/share/ca-certificates"),
        ("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "etc/pki/ca-trust/source/anchors"),
        ("var/lib/ca-certificates/ca-bundle.pem", "etc/pki/trust/anchors"),
    ],
)
def test_they_join_those_of_the_image(tmp_path: Path, bundle: str, source: str) -> None:
    """In the bundle, and in the folder from which the image's own tool makes it anew."""
    path, one = image(tmp_path, bundle), authority("one")
    (tmp_path / source).mkdir(parents=True)
    env = trust.install([one], str(tmp_path))
    assert path.read_text() == THEIRS + one.pem
    assert (tmp_path / source / f"{one.id}.crt").read_text() == one.pem
    assert env["SSL_CERT_FILE"] == env["REQUESTS_CA_BUNDLE"] == f"/{bundle}"
    assert (tmp_path / env["NODE_EXTRA_CA_CERTS"][1:]).read_text() == one.pem


def test_an_image_without_authorities_gets_them_alone(tmp_path: Path) -> None:
    """Programs with authorities of their own are not told to use that bundle instead: it has no others."""
    one = authority("one")
    for _ in range(2):
        assert set(trust.install([one], str(tmp_path))) == {"NODE_EXTRA_CA_CERTS", "DENO_CERT"}
    assert (tmp_path / BUNDLE).read_text() == one.pem


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    """Nor does one after the image's own tool has made the bundle anew, with them somewhere else in it."""
    path, wanted = image(tmp_path), [authority("one"), authority("two")]
    env = trust.install(wanted, str(tmp_path))
    before = tree(tmp_path)
    assert trust.install(wanted, str(tmp_path)) == env
    assert tree(tmp_path) == before
    path.write_text(wanted[1].pem + THEIRS + wanted[0].pem)
    trust.install(wanted, str(tmp_path))
    assert tree(tmp_path) == before


def test_what_is_not_wanted_any_more_goes(tmp_path: Path) -> None:
    """All of it, and nothing else: the files are as the image had them."""
    image(tmp_path)
    before = tree(tmp_path)
    one, two = authority("one"), authority("two")
    trust.install([one, two], str(tmp_path))
    trust.install([two], str(tmp_path))
    assert one.pem.encode() not in b"".join(tree(tmp_path).values())
    assert two.pem.encode() in tree(tmp_path)[BUNDLE]
    assert trust.install([], str(tmp_path)) == {}
    assert {name: data for name, data in tree(tmp_path).items() if data} == before
    assert trust.install([], str(tmp_path)) == {}


def test_a_start_that_was_cut_off_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had done is known to the next one, which can take it back."""
    path, one = image(tmp_path), authority("one")

    def cut(*_: object) -> None:
        raise OSError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(trust, "_edit_source", cut)
        with pytest.raises(OSError, match="cut off"):
            trust.install([one], str(tmp_path))
    assert one.pem in path.read_text()
    trust.install([], str(tmp_path))
    assert path.read_text() == THEIRS


def test_links_lead_to_one_bundle(tmp_path: Path) -> None:
    """A bundle with several names is edited once, and its names stay links."""
    path, one = image(tmp_path), authority("one")
    (tmp_path / "etc/ssl/cert.pem").symlink_to("certs/ca-certificates.crt")
    trust.install([one], str(tmp_path))
    assert path.read_text().count(one.pem) == 1
    assert (tmp_path / "etc/ssl/cert.pem").is_symlink()


def test_openssl_finds_them_by_its_hash(tmp_path: Path) -> None:
    """In the folder of hashed names, also when another certificate has that name already."""
    image(tmp_path)
    one = authority("same")
    (tmp_path / f"etc/ssl/certs/{one.subject}.0").write_text(make_authority("same").certificate)
    trust.install([one], str(tmp_path))
    (tmp_path / "cert.pem").write_text(one.pem)
    # the links are absolute, as the image's own tool makes them
    source = tmp_path / f"usr/local/share/ca-certificates/{one.id}.crt"
    link = tmp_path / f"etc/ssl/certs/{one.id}.pem"
    assert str(link.readlink()) == f"/usr/local/share/ca-certificates/{one.id}.crt"
    link.unlink()
    link.symlink_to(source)
    done = subprocess.run(
        ["openssl", "verify", "-no-CAfile", "-CApath", tmp_path / "etc/ssl/certs", tmp_path / "cert.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_java_is_told(tmp_path: Path) -> None:
    """Its key store keeps what it had, in JKS, which every Java reads; what goes, goes there too."""
    ders = [keystores._der(THEIRS), keystores._der(authority("another").pem)]
    before = [("debian:theirs", ders[0]), ("debian:another", ders[1])]
    jvm = tmp_path / "usr/lib/jvm/java-21/lib/security/cacerts"
    jvm.parent.mkdir(parents=True)
    jvm.write_bytes(keystores.write(before))
    one = authority("one")
    trust.install([one], str(tmp_path))
    assert keystores.read(jvm.read_bytes()) == [*before, (one.id, keystores._der(one.pem))]
    trust.install([], str(tmp_path))
    assert keystores.read(jvm.read_bytes()) == before


def test_the_pkcs12_of_new_javas_is_read(tmp_path: Path) -> None:
    """OpenSSL makes one without encryption here; with encryption it is left as it is."""
    (tmp_path / "one.pem").write_text(THEIRS)

    def export(*options: str) -> bytes:
        command = ["openssl", "pkcs12", "-export", "-nokeys", "-in", str(tmp_path / "one.pem")]
        return subprocess.run([*command, "-passout", "pass:changeit", *options], capture_output=True, check=True).stdout

    entries = keystores.read(export("-certpbe", "NONE", "-nomac"))
    assert entries is not None
    assert [der for _, der in entries] == [keystores._der(THEIRS)]
    assert keystores.read(export()) is None


@pytest.mark.parametrize("damage", ["cut", "password", "key", "empty", "text"])
def test_a_store_that_is_not_understood_stays(tmp_path: Path, damage: str) -> None:
    """One with another password, with private keys, or damaged."""
    store = keystores.write([("theirs", keystores._der(THEIRS))])
    body = store[:-20]
    changed = {
        "cut": store[:-40],
        "password": body + bytes(20),
        "key": keystores._sealed(body[:12] + struct.pack(">I", 1) + body[16:]),
        "empty": b"",
        "text": b"no store",
    }[damage]
    path = tmp_path / "etc/ssl/certs/java/cacerts"
    path.parent.mkdir(parents=True)
    path.write_bytes(changed)
    trust.install([authority("one")], str(tmp_path))
    assert path.read_bytes() == changed


@pytest.mark.skipif(not shutil.which("keytool"), reason="no Java here")
def test_java_reads_what_is_written(tmp_path: Path) -> None:
    """Java's own tool finds both, and that nothing was tampered with."""
    path = tmp_path / "cacerts"
    path.write_bytes(keystores.write([("theirs", keystores._der(THEIRS)), ("shed-1", keystores._der(THEIRS))]))
    done = subprocess.run(
        ["keytool", "-list", "-keystore", path, "-storepass", "changeit"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(b"trustedCertEntry") == 2


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "a.b"])
def test_a_name_for_files_is_none_that_leads_elsewhere(name: str) -> None:
    """An id becomes the name of a file."""
    with pytest.raises(ValueError, match="id"):
        Authority({"id": name, "pem": THEIRS, "subject": "0123abcd"})


def test_an_odd_image_starts_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are not what they usually are cost certificates, not the shed."""
    (tmp_path / "etc/ssl").mkdir(parents=True)
    (tmp_path / "etc/ssl/certs").write_text("a file")
    install, said = trust.install, list[str]()
    monkeypatch.setattr(trust, "install", lambda wanted: install(wanted, str(tmp_path)))
    loop: Any = SimpleNamespace(log=said.append)
    request = Request({"name": "dev", "authorities": [for_guest(make_authority("one").certificate)]})
    assert configure._trusting(loop, request) == {}
    assert "certificates are not trusted everywhere" in said[0]
