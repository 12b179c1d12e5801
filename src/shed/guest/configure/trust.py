"""Certificate authorities that the host wants trusted in this shed, beside those of the image, for any image.

Programs look in different places, so they are put in all of them: the bundles of the distributions, the folder of
hashed names (OpenSSL), the folder from which the image's own tool makes both anew, and Java's key stores.  Programs
that bring authorities of their own (Node, certifi, the AWS tools, gRPC, …) are told by the environment.

What was put there is recorded, so that it goes away when the host does not want it any more.
"""

from __future__ import annotations

import os

from shed.guest import wirejson
from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.request import Authority

_RECORD = "var/lib/shed/authorities.json"
"""[{"id", "pem", "subject"}]: of all that may be in the image's files."""
_OURS = "etc/shed/authorities.pem"
"""The host's alone, for programs that add a file to their own."""
_HASHED = "etc/ssl/certs"
_BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",  # SUSE
    "var/lib/ca-certificates/ca-bundle.pem",
    "etc/ssl/cert.pem",
)
_SOURCES = ("etc/pki/ca-trust/source/anchors", "etc/ca-certificates/trust-source/anchors", "etc/pki/trust/anchors")
"""Of Fedora, Arch and SUSE; others have, or may get, `_SOURCE`."""
_SOURCE = "usr/local/share/ca-certificates"
_REPLACING = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
"""Variables that name a bundle to be used instead of a program's own."""
_ADDING = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_MOST = 16 << 20


def install(wanted: list[Authority], root: str = "") -> dict[str, str]:
    """Have programs trust `wanted`, and no longer what an earlier start had them trust.

    Return the variables that commands need for it.  Raises `OSError`.
    """
    known, recorded = {authority.id for authority in wanted}, _recorded(root)
    gone = [authority for authority in recorded if authority.id not in known]
    if not wanted and not gone:
        return {}
    if known != {authority.id for authority in recorded}:
        _record(root, [*wanted, *gone])  # before anything is done: a start may be cut off
    bundle = _edit_bundles(root, wanted, gone)
    _edit_source(root, wanted, gone)
    from shed.guest.configure import keystores  # few images have Java

    keystores.edit(wanted, gone, root)
    pems = "".join(authority.pem for authority in wanted)
    if steps.read_file(f"{root}/{_OURS}") != pems:
        steps.make_folder(f"{root}/{_OURS}".rpartition("/")[0])
        steps.write_file(f"{root}/{_OURS}", pems)
    if gone:
        _record(root, wanted)
    if not wanted:
        return {}
    return {**dict.fromkeys(_ADDING, f"/{_OURS}"), **dict.fromkeys(_REPLACING if bundle else (), bundle)}


def _edit_bundles(root: str, wanted: list[Authority], gone: list[Authority]) -> str:
    """Edit all bundles that there are, or make one.

    Return the path of one that has the image's authorities, too; empty when the image has none.
    """
    found, whole = set(), ""
    for bundle in _BUNDLES:
        path = os.path.realpath(f"{root}/{bundle}")
        if path in found or not _is_small_file(path):
            continue
        found.add(path)
        if _edit_bundle(path, wanted, gone):
            whole = whole or f"/{bundle}"
    if not found and wanted:
        steps.make_folder(f"{root}/{_HASHED}")
        steps.write_file(f"{root}/{_BUNDLES[0]}", "".join(authority.pem for authority in wanted))
    return whole


def _edit_bundle(path: str, wanted: list[Authority], gone: list[Authority]) -> bool:
    """Return whether the bundle has authorities of the image."""
    with open(path, "rb", buffering=0) as file:
        before = file.read()
    theirs = before
    for authority in [*wanted, *gone]:
        theirs = theirs.replace(authority.pem.encode(), b"")
    whole = _BEGIN in theirs
    ours = "".join(authority.pem for authority in wanted).encode()
    after = theirs + (b"" if theirs.endswith(b"\n") or not theirs else b"\n") + ours
    if after != before:
        steps.write_file(path, after)
    return whole


def _edit_source(root: str, wanted: list[Authority], gone: list[Authority]) -> None:
    """Edit the folder from which the image's tool makes bundles, and that of hashed names, as that tool would."""
    source = next((folder for folder in _SOURCES if os.path.isdir(f"{root}/{folder}")), _SOURCE)
    hashed = os.path.isdir(f"{root}/{_HASHED}")
    for authority in gone:
        _unlink(f"{root}/{source}/{authority.id}.crt")
        if hashed:
            _unlink(f"{root}/{_HASHED}/{authority.id}.pem")
            if (link := _hashed_name(root, authority)) is not None:
                _unlink(link)
    for authority in wanted:
        steps.make_folder(f"{root}/{source}")
        path = f"{root}/{source}/{authority.id}.crt"
        if steps.read_file(path) != authority.pem:
            steps.write_file(path, authority.pem)
        if hashed:
            _link(f"/{source}/{authority.id}.crt", f"{root}/{_HASHED}/{authority.id}.pem")
            if (link := _hashed_name(root, authority)) is not None:
                _link(f"{authority.id}.pem", link)


def _hashed_name(root: str, authority: Authority) -> str | None:
    """Return the hashed name that an authority has, or the first that is free."""
    for number in range(100):
        path = f"{root}/{_HASHED}/{authority.subject}.{number}"
        if not os.path.lexists(path) or (os.path.islink(path) and os.readlink(path) == f"{authority.id}.pem"):
            return path
    return None


def _recorded(root: str) -> list[Authority]:
    text = steps.read_file(f"{root}/{_RECORD}")
    if not text:
        return []
    from shed.guest.configure.request import Authority

    try:
        value = wirejson.loads(text.encode(errors="replace"))
        return [Authority(entry) for entry in value] if isinstance(value, list) else []
    except ValueError:
        return []


def _record(root: str, authorities: list[Authority]) -> None:
    steps.make_folder(f"{root}/{_RECORD}".rpartition("/")[0])
    value = [{"id": each.id, "pem": each.pem, "subject": each.subject} for each in authorities]
    steps.write_file(f"{root}/{_RECORD}", wirejson.dumps(value).decode())


def _is_small_file(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) <= _MOST


def _link(target: str, path: str) -> None:
    if not os.path.lexists(path):
        os.symlink(target, path)


def _unlink(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
