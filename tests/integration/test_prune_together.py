"""Four processes that build, load, pull, push, use, remove and prune at once: nothing that is needed is ever seen to be
missing.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shed.images.annotations import blobs_of
from shed.images.prune import prune
from shed.images.push import push_image
from shed.oci.digest import digest_bytes
from shed.oci.store import LayoutStore
from support.images.minted import mint_small
from support.layers.tars import file, tar
from support.registries.docker_registry import docker_registry, no_credentials

log = logging.getLogger(__name__)
SECONDS = int(os.environ.get("SHED_TEST_SECONDS", "8"))
WORK = '''
import json, random, sys, time
from collections import Counter
from pathlib import Path
from shed.errors import NotFoundError
from shed.images.references import all_tags
from shed.images.prune import prune
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.images.annotations import blobs_of
from shed.images.tags import remove_image
from shed.oci.digest import digest_bytes
from shed.oci.store import LayoutStore
from support.images.minted import mint_small
from support.images.stored import put_image
from support.layers.tars import file, tar

root, number, seconds, published = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), json.loads(sys.argv[4])
store, dice, counts = LayoutStore(root / "images"), random.Random(int(number)), Counter()
scratch = root / number
scratch.mkdir()


def whole(digest):
    """Fail unless the image is here with all its blobs."""
    for blob in blobs_of(digest, store.read_manifest(digest)):
        store.verify(blob)


def load():
    with store.lease() as lease:  # the tag may be removed by another the moment it is there
        digest = put_image(store, dice.choice("abcdef"), dice.choice("xyz"), layers=dice.randrange(4), held=lease)
        whole(digest)


def mint():
    name = f"mine-{number}"  # that nobody else removes
    with store.lease() as lease:
        lease.blobs(*map(digest_bytes, (b"kernel", b"initrd", b"runtime")))  # the kit, which no record names here
        whole(mint_small(store, scratch, name, tar(file(dice.choice("abc")))).manifest_digest)


def pull():
    reference, digest = dice.choice(list(published.items()))
    with store.lease() as lease:
        lease.image(digest)  # as above
        pull_image(store, reference, tag=dice.choice("xyz"), with_layers=True)
        whole(digest)


def use(how=whole):
    tags = all_tags(store)
    if tags:
        _, digest = dice.choice(tags)
        with store.lease() as lease:
            lease.image(digest)
            if store.has(digest):
                whole(digest)
                time.sleep(0.01)
                how(digest)
                counts["used"] += 1


def push():
    registry = next(iter(published)).partition("/")[0]
    use(lambda digest: push_image(store, digest, f"{registry}/copy/{number}:v{dice.randrange(5)}"))


def remove():
    try:
        remove_image(store, dice.choice("xyz"), [], {})
    except NotFoundError:
        pass


def clean():
    counts["pruned"] += bool(prune(store, list, {}).garbage)


WORKS = "load", "pull", "mint", "push", "used", "pruned"
end = time.monotonic() + seconds
while time.monotonic() < end or not all(counts[what] for what in WORKS):
    work = dice.choice([load, load, pull, mint, push, use, remove, clean, clean])
    work()
    counts[work.__name__] += 1
print(*(counts[what] for what in WORKS))
'''


@pytest.mark.slow
def test_four_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each verifies, digest by digest, what it has just added and what it holds; at the end there is what the tags
    need, no more.
    """
    no_credentials(monkeypatch, tmp_path)
    origin = LayoutStore(tmp_path / "origin")
    with docker_registry(tmp_path / "registry") as registry:
        published = {}
        for name in ("one", "two"):
            digest = mint_small(origin, tmp_path, name, tar(file(name))).manifest_digest
            push_image(origin, name, f"{registry.address}/shed/{name}:v1")
            published[f"{registry.address}/shed/{name}:v1"] = digest
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        arguments = [str(SECONDS), json.dumps(published)]
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORK, str(tmp_path), str(number), *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        results = [worker.communicate(timeout=SECONDS + 200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, results
    counts = [list(map(int, output.split())) for output, _ in results]
    totals = [sum(column) for column in zip(*counts, strict=True)]
    log.info(
        "%d s: %d loads, %d pulls, %d builds, %d pushes, %d uses, %d prunes that removed something", SECONDS, *totals
    )
    assert all(totals), results
    store = LayoutStore(tmp_path / "images")
    prune(store, list, {})
    tags = [tag for name in store.tag_names() if (tag := store.tag(name))]
    wanted = set[str]().union(*(blobs_of(tag.digest, store.read_manifest(tag.digest)) for tag in tags))
    assert set(store.inventory()) == wanted
    assert {entry.digest for entry in store.index().manifests} == {tag.digest for tag in tags}
    assert all(digest_bytes(store.blob_path(digest).read_bytes()) == digest for digest in wanted)
    assert list((store.root / "leases").iterdir()) == []
