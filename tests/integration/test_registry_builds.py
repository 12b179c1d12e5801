"""`shed image build --from` a registry: what was fetched is not fetched again, and nothing is written twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.errors import DataError
from shed.images.bootkit.build import save_kit
from shed.images.mint import mint, mint_archive
from shed.images.prune import prune
from shed.images.push import push_image
from shed.images.remote import open_remote
from shed.oci.content import BytesSource
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes, hex_of
from shed.oci.partial import partials
from shed.oci.registry.client import Repository
from shed.oci.registry.connections import CHUNK
from shed.oci.registry.reference import parse_reference
from shed.oci.store import LayoutStore
from shed.progress import Progress
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, file, folder, tar
from support.registries.counting_proxy import BUFFER, CountingProxy, counting_proxy
from support.registries.docker_registry import DockerRegistry, docker_registry, no_credentials
from support.waiting import wait_until

SIZE = 12 << 20
"""Bytes of the only large layer."""
IN_FLIGHT = CHUNK + 8 * BUFFER
"""Bytes of it that may have been sent to a process that is killed, and not written by it."""
DOCUMENTS = 64 << 10
"""More bytes than manifests, configs, and the heads of answers have."""
BIG = tar(folder("usr"), *(file(f"usr/{number}", os.urandom(SIZE // 12)) for number in range(12)))
BUILD = (
    "import sys; from shed.cli.main import main; code = main(); "
    "sys.stderr.write(open('/proc/self/io').read()); sys.exit(code)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry with the image ``big/app:v1``."""
    scratch = tmp_path_factory.mktemp("registry")
    with docker_registry(scratch / "r") as registry:
        store = LayoutStore(scratch / "images")
        mint_archive(store, Image(LAYER, BIG, compress=False).archive(scratch / "a.tar"), "app", kit=small_kit(store))
        push_image(store, "app", f"{registry.address}/big/app:v1")
        yield registry


@pytest.fixture
def proxy(server: DockerRegistry) -> Iterator[CountingProxy]:
    """A way to the registry."""
    with counting_proxy(server.address) as proxy:
        yield proxy


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LayoutStore:
    """The store that `shed` uses, with a boot kit."""
    no_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("SHED_DATA_DIR", str(tmp_path))
    store = LayoutStore(tmp_path / "images")
    save_kit(store, small_kit(store))
    return store


def start(proxy: CountingProxy) -> subprocess.Popen[str]:
    """Begin to build the image ``base``."""
    words = ["image", "build", "-n", "base", "--from", f"docker://{proxy.address}/big/app:v1", "--json"]
    command = [sys.executable, "-c", BUILD, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[dict[str, object], int]:
    """Wait for a build; return what it says, and how many bytes it wrote."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    written = re.search(r"wchar: (\d+)", err)
    return json.loads(out or "{}"), int(written[1]) if written else 0


def begun(process: subprocess.Popen[str], proxy: CountingProxy, store: LayoutStore) -> int:
    """Wait until half of the large layer has been sent to a build, and some of it is here; return how much then."""

    def half() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return not proxy.flows.is_set() and size_here(store) >= SIZE // 2 - IN_FLIGHT

    wait_until(half, seen=lambda: f"{proxy.passed} bytes passed, {size_here(store)} are here")
    return size_here(store)


def size_here(store: LayoutStore) -> int:
    """Return how many bytes of layers that are not whole are in the store."""
    return sum(status.st_size for status in partials(store.blobs).values())


def test_each_byte_comes_once_and_is_written_once(proxy: CountingProxy, store: LayoutStore) -> None:
    """The layers become blobs as they come, and are read there; what is up to date is not even fetched."""
    told, written = finish(start(proxy))
    proxy.settle()
    layers, root = told["layers_size_bytes"], told["root_size_bytes"]
    assert isinstance(layers, int)
    assert isinstance(root, int)
    assert layers < proxy.passed < layers + DOCUMENTS
    assert written < layers + root + (2 << 20)
    assert not [*store.blobs.glob(".*.tmp"), *store.blobs.glob(".partial-*")]
    before = proxy.passed
    again, _ = finish(start(proxy))
    proxy.settle()
    assert (again["reused"], proxy.passed - before < DOCUMENTS) == (True, True)


def test_a_build_that_is_killed(proxy: CountingProxy, store: LayoutStore) -> None:
    """The next one goes on where it ended."""
    proxy.hold_at = SIZE // 2
    process = start(proxy)
    begun(process, proxy, store)
    process.send_signal(signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    proxy.flows.set()
    proxy.settle()
    here, before = size_here(store), proxy.passed
    assert 0 < here < SIZE
    told, _ = finish(start(proxy))
    proxy.settle()
    layers = told["layers_size_bytes"]
    assert isinstance(layers, int)
    assert proxy.passed - before < layers - here + DOCUMENTS
    assert not [*store.blobs.glob(".*.tmp"), *store.blobs.glob(".partial-*")]


def test_a_connection_that_is_cut(proxy: CountingProxy, store: LayoutStore) -> None:
    """The build says so and leaves no image; the next one fetches the rest."""
    proxy.cut_at = SIZE // 2
    finish(start(proxy), 1)
    proxy.settle()
    here, before = size_here(store), proxy.passed
    assert SIZE // 2 - IN_FLIGHT < here < SIZE
    assert store.tag_names() == []
    proxy.cut_at = None
    told, _ = finish(start(proxy))
    proxy.settle()
    layers = told["layers_size_bytes"]
    assert isinstance(layers, int)
    assert proxy.passed - before < layers - here + DOCUMENTS


def put(server: DockerRegistry, image: Image, name: str) -> tuple[str, list[Digest]]:
    """Put an image into the registry as it is; return its reference, and the digests of its layers."""
    reference = f"{server.address}/{name}:v1"
    with Repository(parse_reference(reference), push=True) as repository:
        entry = Descriptor.parse(image.seal(), "test")
        for data in image.blobs.values():
            repository.upload_blob(digest_bytes(data), BytesSource(data))
        repository.put_manifest("v1", image.blobs[hex_of(entry.digest)], entry.media_type)
    return reference, [Digest(layer["digest"]) for layer in image.manifest["layers"]]


def test_an_image_that_is_at_fault(server: DockerRegistry, store: LayoutStore) -> None:
    """What was fetched for it goes, but for what another image needs, or somebody who is at work."""
    shared, leased = tar(file("shared", os.urandom(5000))), tar(file("leased", os.urandom(5000)))
    bad = tar(file("../x", os.urandom(5000)))
    kit = small_kit(store)
    with open_remote(put(server, Image(shared), "good")[0], platform=None, store=store, progress=Progress()) as remote:
        mint(store, remote, "good", kit=kit)
    before = store.blob_digests()
    reference, layers = put(server, Image(shared, leased, bad), "bad")
    with store.lease() as lease:
        lease.blobs(layers[1])
        with (
            open_remote(reference, platform=None, store=store, progress=Progress()) as remote,
            pytest.raises(DataError, match="leads out of the root"),
        ):
            mint(store, remote, "bad", kit=kit)
    assert set(store.blob_digests()) == {*before, layers[1]}
    assert (store.tag_names(), partials(store.blobs)) == (["good"], {})


def test_a_prune_beside_a_build(proxy: CountingProxy, store: LayoutStore) -> None:
    """It spares what is on its way; when the build was killed, the next one takes it away."""
    proxy.hold_at = SIZE // 2
    process = start(proxy)
    here = begun(process, proxy, store)
    prune(store, list, {})
    assert size_here(store) >= here
    process.send_signal(signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    prune(store, list, {})
    assert size_here(store) == 0
