"""A whole store that v0.5.2 of the implementation in Go left: it is listed, examined, pruned and taken over."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.checks import Status
from shed.config.paths import Paths
from shed.images.annotations import RUNTIME_KEY
from shed.oci.digest import short
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore
from shed.server.doctor import storage
from shed.server.doctor.host import Host
from support.images.runtimes import small_runtime
from support.images.store_v052 import StoreV052
from support.images.stored import image_parts
from support.vms.machine import Machine

Digests = dict[str, str]


@pytest.fixture
def left(tmp_path: Path) -> StoreV052:
    """The folder, empty yet."""
    return StoreV052(tmp_path / "data")


@pytest.fixture
def images(left: StoreV052) -> Digests:
    """Four images, of which two have a tag, one is a shed's and one a snapshot's, and a fifth that nobody needs; none
    has a runtime.
    """
    digests = {}
    for content in ("base", "full", "of-shed", "of-snapshot", "nobodys"):
        parts, blobs = image_parts(content, layers=2)
        annotations = {key: value for key, value in parts.annotations.items() if key != RUNTIME_KEY}
        manifest = json.dumps(json.loads(Manifest(parts.config, parts.layers, annotations).encode()), indent=2).encode()
        blobs.remove(small_runtime("kit"))
        digests[content] = left.put_image(manifest, blobs, content if content in ("base", "full") else None)
    left.put_shed("old", digests["of-shed"])
    left.put_snapshot("snap", digests["of-snapshot"])
    return digests


@pytest.fixture
def machine(images: Digests, tmp_path: Path) -> Iterator[Machine]:
    """A machine with that folder."""
    machine = Machine(tmp_path)
    yield machine
    machine.end()


def test_what_is_there_is_shown(machine: Machine, images: Digests) -> None:
    """Every image, who needs it, and why it does not boot here; the shed, as a warning that says what can be done."""
    listed = {image["digest"]: image for image in json.loads(machine.shed("image", "ls", "--json"))}
    assert {image["name"] for image in listed.values()} == {"base", "full", ""}
    shown = {
        content: (listed[digest]["source"], listed[digest]["in_use"], listed[digest]["layers"])
        for content, digest in images.items()
    }
    assert shown == {
        "base": ("config", [], "full"),
        "full": ("user", [], "full"),
        "of-shed": ("user", ["shed 'old'"], "full"),
        "of-snapshot": ("user", ["snapshot 'snap'"], "full"),
        "nobodys": ("dangling", [], "full"),
    }
    assert {image["warning"].partition(" names ")[2] for image in listed.values()} == {"no runtime erofs blob"}
    table = machine.shed("image", "ls")
    assert all(short(digest)[-12:] in table for digest in images.values())
    sheds = machine.try_shed("list")
    assert b"shed 'old' was made by another implementation of shed" in sheds.stderr
    for words in (["start", "old"], ["exec", "old", "--", "true"]):
        refused = machine.try_shed(*words)
        assert refused.returncode != 0
        assert b"shed delete --force old" in refused.stderr
    refused = machine.try_shed("create", "new", "--image", "base")
    assert b"names no runtime erofs blob" in refused.stderr
    assert b"shed image build" in refused.stderr
    assert b"is in use" in machine.try_shed("image", "rm", images["of-shed"]).stderr


def test_doctor(images: Digests, tmp_path: Path) -> None:
    """A row for each image and for the shed, each with the next step."""
    host = Host(Paths(tmp_path / "data", tmp_path / "run"))
    rows = {row.name: row for check in (storage.images, storage.sheds, storage.leftovers) for row in check(host)}
    bad = {name: row.hint for name, row in rows.items() if row.status is Status.FAIL}
    untagged = {f"image {images[content][7:19]}" for content in ("of-shed", "of-snapshot", "nobodys")}
    assert bad.keys() == {"image base", "image full", "shed old"} | untagged
    assert all(bad.values())


def test_prune(machine: Machine, left: StoreV052, images: Digests) -> None:
    """What nobody needs goes, blob by blob; what tags, the shed and the snapshot need stays, and so do the lock
    files.
    """
    locks = {name for name in left.names() if name.endswith(".lock")}
    gone = json.loads(machine.shed("image", "prune", "--dry-run", "--json"))["deleted"]
    assert {row["digest"] for row in gone if row["kind"] == "image"} == {images["nobodys"]}
    assert len(gone) == 5  # manifest, config, two layers, root
    before = left.names()
    machine.shed("image", "prune", "--force")
    assert {f"sha256:{name}" for name in before - left.names() if not name.startswith(".")} == {
        row["digest"] for row in gone
    }
    assert locks <= left.names()
    assert len(json.loads((left.root / "index.json").read_text())["manifests"]) == 4
    machine.shed("delete", "--force", "old")
    machine.shed("image", "prune", "--force")
    assert not LayoutStore(left.root).has(images["of-shed"])
    assert LayoutStore(left.root).has(images["of-snapshot"])


@pytest.mark.parametrize(
    "record", ["instances/old/metadata.json", "snapshots/snap/snapshot.json", "tags/base.json", "index.json"]
)
def test_prune_refuses_what_it_cannot_read(machine: Machine, left: StoreV052, record: str) -> None:
    """It names the file, and nothing goes."""
    path = (left.root if record.startswith(("tags", "index")) else left.data) / record
    path.write_text("{")
    before = left.names()
    refused = machine.try_shed("image", "prune", "--force")
    assert (refused.returncode, str(path) in refused.stderr.decode()) == (1, True)
    assert {
        name for name in before - left.names() if not name.startswith(".staging-")
    } == set()  # those go when the server starts


def test_what_a_crash_left(machine: Machine, left: StoreV052) -> None:
    """Temporary files of v0.5.2 go when they are old."""
    (staged,) = left.blobs.glob(".staging-*.tmp")
    named = left.blobs / f".{'0' * 64}.123.tmp"
    named.write_bytes(b"begun")
    for path in (staged, named):
        os.utime(path, (time.time() - 7200,) * 2)
    machine.shed(
        "system", "prune", "--orphans", "--force"
    )  # one of them goes when the server starts, before it or meanwhile
    assert not staged.exists()
    assert not named.exists()
