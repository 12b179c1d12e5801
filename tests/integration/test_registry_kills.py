"""A push, or a pull, that is killed at any moment: the next one succeeds, and in between nobody is shown half an
image.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from urllib3.connection import HTTPConnection

from shed.errors import NotFoundError
from shed.images.annotations import blobs_of
from shed.images.mint import mint_archive
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.images.resolve import resolve_image
from shed.oci.digest import Digest
from shed.oci.partial import partial_path
from shed.oci.registry.connections import CHUNK
from shed.oci.store import LayoutStore
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, file, folder, tar
from support.registries.counting_proxy import BUFFER, CountingProxy, counting_proxy
from support.registries.docker_registry import DockerRegistry, docker_registry, no_credentials

log = logging.getLogger(__name__)
MOMENTS = int(os.environ.get("SHED_TEST_KILLS", "20"))
AT_ONCE = 2
"""Blobs of the image that are so large that they may be on their way when a pull is killed."""
IN_FLIGHT = AT_ONCE * (CHUNK + 4 * BUFFER)
"""Bytes that a killed pull was sent and had not written: a chunk of each blob, and what lay in both sockets, twice what
is asked for.
"""
DOCUMENTS = 64 << 10
"""More bytes than manifests, configs, and the heads of answers have."""
BIG = tar(folder("usr"), *(file(f"usr/{number}", os.urandom(1_000_000)) for number in range(10)))
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["shed.images.push", "shed.images.pull"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry."""
    with docker_registry(tmp_path_factory.mktemp("registry") / "r") as registry:
        yield registry


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_credentials(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def minted(tmp_path_factory: pytest.TempPathFactory) -> tuple[LayoutStore, Digest]:
    """A store with an image of about 20 MB, and the digest of its manifest."""
    scratch = tmp_path_factory.mktemp("minted")
    store = LayoutStore(scratch / "images")
    archive = Image(LAYER, BIG, compress=False).archive(scratch / "a.tar")
    return store, mint_archive(store, archive, "app", kit=small_kit(store)).manifest_digest


def push(folder: Path, reference: str) -> None:
    """Push the image ``app`` of a store."""
    push_image(LayoutStore(folder), "app", reference)


def pull(folder: Path, reference: str) -> None:
    """Pull into a store, by sockets that hold little: what lies in them is lost with the process, megabytes on a busy
    machine.
    """
    cast(list[object], HTTPConnection.default_socket_options).append((socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER))
    pull_image(LayoutStore(folder), reference, with_layers=True)


def killed(work: Callable[[Path, str], None], folder: Path, reference: str, moment: Callable[[], bool]) -> bool:
    """Do `work` in a process, and kill that when the `moment` has come; return whether it was still at it."""
    process = _processes.Process(target=work, args=(folder, reference))
    process.start()
    while process.is_alive() and not moment():
        time.sleep(0.001)
    process.kill()
    process.join()
    return process.exitcode != 0


def after(seconds: float) -> Callable[[], bool]:
    """Return a moment that comes in so many seconds."""
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() >= moment


def when(proxy: CountingProxy, count: int) -> Callable[[], bool]:
    """Return a moment that comes when so many bytes more have been passed, or a little later, as blobs get their names
    then.
    """
    enough = proxy.passed + count

    def come() -> bool:
        if proxy.passed < enough:
            return False
        time.sleep(random.uniform(0, 0.05))
        return True

    return come


def size_here(store: LayoutStore, digest: Digest) -> int:
    """Return how many bytes of a blob are here, in part or whole."""
    path = store.blob_path(digest) if store.has(digest) else partial_path(store.blobs, digest)
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
def test_a_push_that_is_killed(server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path) -> None:
    """The tag is not there, or it is the whole image; a retry succeeds, and what is pulled then is the image."""
    store, digest = minted
    for name in ("warm", "whole"):
        start = time.monotonic()
        assert not killed(push, store.root, f"{server.address}/kill/{name}:v1", lambda: False)
        whole = time.monotonic() - start
    hits = 0
    for number in range(MOMENTS):
        reference = f"{server.address}/kill/push{number}:v1"
        moment = random.uniform(0, whole)
        hit = killed(push, store.root, reference, after(moment))
        hits += hit
        whole = whole if hit else moment  # the machine has less to do than it had
        with contextlib.suppress(NotFoundError):
            assert pull_image(LayoutStore(tmp_path / f"early{number}"), reference).digest == digest, moment
        assert push_image(store, "app", reference).digest == digest, moment
        target = LayoutStore(tmp_path / f"late{number}")
        assert pull_image(target, reference, with_layers=True).digest == digest, moment
        assert resolve_image(target, f"push{number}", verify=True, trusted=None).digest == digest
    assert hits > MOMENTS // 3


@pytest.mark.slow
def test_a_pull_that_is_killed(server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path) -> None:
    """The tag is not there, or it is the whole image; every blob is what its name says; and the next pull fetches only
    what is missing.
    """
    store, digest = minted
    manifest = store.read_manifest(digest)
    wanted = blobs_of(digest, manifest) - {digest, manifest.config.digest}
    with counting_proxy(server.address, rate=16 << 20) as proxy:
        reference = f"{proxy.address}/kill/pulled:v1"
        push_image(store, "app", f"{server.address}/kill/pulled:v1")
        before = proxy.passed
        assert not killed(pull, tmp_path / "whole", reference, lambda: False)
        proxy.settle()
        size = proxy.passed - before
        hits = kept = spent = 0
        for number in range(MOMENTS):
            target = LayoutStore(tmp_path / f"store{number}")
            moment, before = random.randrange(size), proxy.passed
            hits += killed(pull, target.root, reference, when(proxy, moment))
            proxy.settle()
            first = proxy.passed - before
            if target.tag("pulled"):
                assert resolve_image(target, "pulled", verify=True, trusted=None).digest == digest, moment
            for blob in target.blob_digests():
                target.verify(blob, again=True)
            here = sum(size_here(target, blob) for blob in wanted)
            before = proxy.passed
            pulled = pull_image(target, reference, with_layers=True)
            proxy.settle()
            second = proxy.passed - before
            assert (pulled.digest, resolve_image(target, "pulled", verify=True, trusted=None).digest) == (
                digest,
                digest,
            ), moment
            assert pulled.fetched_bytes == sum(map(store.size, wanted)) - here, moment
            assert second - pulled.fetched_bytes < DOCUMENTS, moment
            assert first + second < size + IN_FLIGHT + DOCUMENTS, (moment, first, second, size)
            assert not [*target.blobs.glob(".*.tmp"), *target.blobs.glob(".partial-*")], moment
            kept += here
            spent += first + second - size
    log.info("%d kills, %d in time: %d MiB kept, %d KiB fetched twice", MOMENTS, hits, kept >> 20, spent >> 10)
    assert hits > MOMENTS // 3
    assert kept > size


@pytest.mark.slow
def test_who_waits_for_a_pull_that_is_killed(
    server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path
) -> None:
    """Another process, which pulls the same blobs by another reference, goes on where it ended."""
    store, digest = minted
    for version in ("v1", "v2"):
        push_image(store, "app", f"{server.address}/kill/both:{version}")
    target = LayoutStore(tmp_path / "store")
    with counting_proxy(server.address, rate=8 << 20) as proxy:
        first, second = (
            _processes.Process(target=pull, args=(target.root, f"{proxy.address}/kill/both:{version}"))
            for version in ("v1", "v2")
        )
        first.start()
        while proxy.passed < 4 * CHUNK:
            assert first.is_alive()
            time.sleep(0.001)
        proxy.flows.clear()
        second.start()
        time.sleep(0.3)
        first.kill()
        first.join()
        proxy.flows.set()
        second.join(120)
        assert (first.exitcode, second.exitcode) == (-9, 0)
        proxy.settle()
        size = sum(map(target.size, target.blob_digests()))
        assert size < proxy.passed < size + IN_FLIGHT + DOCUMENTS
    assert resolve_image(target, "both", verify=True, trusted=None).digest == digest
