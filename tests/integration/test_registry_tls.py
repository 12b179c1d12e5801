"""A registry as companies run it, and one that a developer runs at localhost: TLS by an authority of its own, and a
password.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.images.resolve import resolve_image
from shed.oci.digest import Digest
from shed.oci.store import LayoutStore
from support.images.minted import mint_small
from support.registries.certificates import HOST, Certificate, make_certificate
from support.registries.docker_registry import PASSWORD, DockerRegistry, docker_registry, no_credentials
from support.vms.machine import Machine

HOSTS = HOST, "localhost"
Certificates = dict[str, Certificate]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate for each host, and ``another``, of authorities of their own."""
    folder = tmp_path_factory.mktemp("authorities")
    return {
        **{host: make_certificate(folder / host, host) for host in HOSTS},
        "another": make_certificate(folder / "another"),
    }


@pytest.fixture(scope="module", params=HOSTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[DockerRegistry]:
    """The registry."""
    certificate = certificates[request.param]
    with docker_registry(tmp_path_factory.mktemp("registry") / "r", password=True, certificate=certificate) as registry:
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """The store of the machine, with the image ``app``."""
    store = LayoutStore(tmp_path / "data/images")
    mint_small(store, tmp_path, "app")
    return store


@pytest.fixture(autouse=True)
def _logged_in(server: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_credentials(monkeypatch, tmp_path)
    (tmp_path / "docker").mkdir()
    secret = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {server.address: {"auth": secret}}}))


@pytest.fixture
def trusted(server: DockerRegistry, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the registry's authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates[server.address.partition(":")[0]].authority))


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("local", [True, False], ids=["local", "by-the-server"])
def test_push_and_pull(server: DockerRegistry, store: LayoutStore, tmp_path: Path, *, local: bool) -> None:
    """By whoever trusts it and has the password."""
    machine, where = Machine(tmp_path), ["--local"] if local else []
    reference = f"{server.address}/tls/app{len(where)}:v1"
    digest = json.loads(machine.shed("image", "push", "app", reference, "--json", *where))["digest"]
    for blob in store.blob_digests():
        store.blob_path(blob).unlink()
    pulled = json.loads(machine.shed("image", "pull", reference, "-t", "back", "--with-layers", "--json", *where))
    assert (pulled["digest"], pulled["fetched"]) == (digest, 5)
    assert resolve_image(store, "back", verify=True, trusted=None).digest == Digest(digest)
    machine.end()


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password(server: DockerRegistry, store: LayoutStore, tmp_path: Path) -> None:
    """One sentence and where to log in."""
    secret = base64.b64encode(b"me:sesame").decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {server.address: {"auth": secret}}}))
    done = Machine(tmp_path).try_shed("image", "pull", f"{server.address}/tls/app:v1", "--local")
    error, hint = done.stderr.decode().splitlines()[-2:]
    assert (done.returncode, done.stdout) == (1, b"")
    assert error.startswith(f"error: {server.address} wants credentials for manifest tls/app:v1")
    assert hint.startswith(f"hint: log in: docker login {server.address}")
    assert "sesame" not in done.stderr.decode()


@pytest.mark.parametrize("trust", ["", "another"])
@pytest.mark.parametrize("words", [("pull", "{}"), ("push", "app", "{}")], ids=["pull", "push"])
def test_an_authority_that_is_not_trusted(
    server: DockerRegistry,
    store: LayoutStore,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    trust: str,
) -> None:
    """One clear error, at once, which says how to trust it; the store and the registry stay as they were."""
    if trust:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates["another"].authority))
    before = store.inventory().keys()
    done = Machine(tmp_path).try_shed(
        "image", *(word.format(f"{server.address}/tls/no:v1") for word in words), "--local"
    )
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert lines[-2].startswith(
        f"error: no encrypted connection to {server.address}: unable to get local issuer certificate"
    )
    assert lines[-1] == "hint: if it has a certificate of its own, set SSL_CERT_FILE; if it has none, use --insecure"
    assert sum(line.startswith("error:") for line in lines) == 1
    assert store.inventory().keys() == before
    assert not (server.storage / "docker/registry/v2/repositories/tls/no").exists()


def test_without_encryption(server: DockerRegistry, tmp_path: Path) -> None:
    """Told as what it is."""
    done = Machine(tmp_path).try_shed("image", "pull", f"{server.address}/tls/app:v1", "--insecure", "--local")
    error, hint = done.stderr.decode().splitlines()[-2:]
    assert (done.returncode, error) == (1, f"error: {server.address} wants an encrypted connection")
    assert hint == "hint: leave out --insecure"
