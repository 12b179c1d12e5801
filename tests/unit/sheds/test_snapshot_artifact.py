"""A snapshot as an artifact: its documents, and the way of its disk into chunks and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shed.backends.interface import Shape
from shed.budget import DEFAULT_LIMITS
from shed.config.paths import Paths
from shed.errors import ConflictError, DataError, ShedError, StorageError, UsageError
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes
from shed.progress import PhaseEvent, Progress, Stop
from shed.sheds.artifact import disk
from shed.sheds.artifact.cutting import cut
from shed.sheds.artifact.document import CHUNK, CONFIG, MOST_CHUNKS, Artifact, Manifest, chunk_size
from shed.sheds.artifact.files import save_to_file
from shed.sheds.artifact.receiving import load_snapshot
from shed.sheds.snapshotstore import MEMORY, UPPER, Snapshot, SnapshotStore

GIB = 1 << 30
MIB = 1 << 20
SNAPSHOT = Snapshot(
    "monday", "qemu", "dev", "base", "2026-11-30T09:00:00Z", f"sha256:{'a' * 64}", GIB + 4096, "ok", ("offline",)
)


class Blobs:
    """Keeps chunks in memory."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.before: dict[Digest, Descriptor] = {}

    def known(self, content: Digest) -> Descriptor | None:
        """Return what it was told of before."""
        return self.before.get(content)

    def take(self, blob: Descriptor, data: bytes) -> None:
        """Keep a blob, once."""
        assert blob == Descriptor(CHUNK, digest_bytes(data), len(data))
        assert blob.digest not in self.blobs
        self.blobs[blob.digest] = data


def made(path: Path, pieces: dict[int, bytes], size: int = SNAPSHOT.size_bytes) -> Path:
    """Make a sparse disk with `pieces` at their offsets."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            os.pwrite(file.fileno(), data, offset)
    return path


def remembered(root: Path, pieces: dict[int, bytes], memory: dict[str, bytes]) -> SnapshotStore:
    """Return a store with `SNAPSHOT`, whose disk has `pieces`, and whose memory is these files."""
    root.mkdir()
    store = SnapshotStore(Paths(data=root / "data", run=root / "run"))
    with store.draft("monday") as folder:
        made(folder / UPPER, pieces)
        (folder / MEMORY).mkdir()
        for name, data in memory.items():
            (folder / MEMORY / name).write_bytes(data)
        store.publish(folder, replace(SNAPSHOT, memory=Shape(2, 512)))
    return store


def kept(root: Path, pieces: dict[int, bytes]) -> SnapshotStore:
    """Return a store with `SNAPSHOT`, whose disk has `pieces`."""
    root.mkdir()
    store = SnapshotStore(Paths(data=root / "data", run=root / "run"))
    upper = made(root / "upper", pieces)
    store.save(SNAPSHOT, upper, Progress(), Stop())
    return store


def documents(artifact: Artifact) -> tuple[bytes, bytes]:
    """Return manifest and config."""
    config = artifact.config()
    return artifact.manifest(Descriptor(CONFIG, digest_bytes(config), len(config))), config


def parsed(manifest: bytes, config: bytes) -> Artifact:
    """Return what the documents say."""
    return Manifest.parse(manifest, "the manifest").artifact(config, "the config")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Return one with three places, two of one content, the last of them the short end of the disk."""
    pieces = {0: b"a" * 4096, 7 * MIB: b"b" * MIB, 9 * MIB: b"b" * MIB, GIB: b"end"}
    return cut(SNAPSHOT, {UPPER: made(tmp_path / "disk", pieces)}, Blobs(), Progress(), Stop())


def test_the_documents_say_what_was_cut(artifact: Artifact) -> None:
    """What is read is what was written, but for the name, which is given where it arrives."""
    disk = artifact.disk
    assert disk.places == ((0, 0), (7, 1), (9, 1), (1024, 2))
    assert [disk.length(number) for number, _ in disk.places] == [MIB, MIB, MIB, 4096]
    assert parsed(*documents(artifact)) == replace(artifact, snapshot=replace(SNAPSHOT, name=""))


@pytest.mark.parametrize("size", [GIB, 20 * GIB, 20 * GIB + 1, 100 * GIB])
def test_a_full_disk_has_a_manifest_that_registries_take(size: int) -> None:
    """A disk has as many chunks as fit into 4 MiB of manifest, and not many fewer."""
    count = -(-size // chunk_size(size))
    assert count <= MOST_CHUNKS
    assert chunk_size(size) == MIB or count > MOST_CHUNKS // 2
    layer = Descriptor(CHUNK, digest_bytes(b""), chunk_size(size)).to_json()
    assert count * (len(json.dumps(layer, separators=(",", ":"))) + 1) < 4 * MIB - 4096


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255), st.integers(1, 3 * MIB)), max_size=8))
def test_any_disk_comes_back(tmp_path: Path, writes: list[tuple[int, int, int]]) -> None:
    """Whatever was written, zeros too, is there again; each content is taken once, and what is known not at all."""
    source, target = tmp_path / "source", tmp_path / "target"
    made(source, {place * (MIB // 2): bytes([value]) * length for place, value, length in writes}, GIB)
    snapshot = replace(SNAPSHOT, size_bytes=GIB)
    blobs = Blobs()
    artifact = cut(snapshot, {UPPER: source}, blobs, Progress(), Stop(), threads=3)
    part = artifact.disk
    made(target, {}, GIB)
    with target.open("r+b") as file:
        for number, index in part.places:
            chunk = artifact.chunks[index]
            assert not disk.has(file.fileno(), part, number, chunk.content)
            data = disk.unpack(blobs.blobs[chunk.blob.digest], part.length(number), chunk.content, "it")
            disk.write(file.fileno(), number * part.chunk_bytes, data)
            assert disk.has(file.fileno(), part, number, chunk.content)
    with source.open("rb") as one, target.open("rb") as other:
        assert one.read(32 * MIB) == other.read(32 * MIB)
    again = Blobs()
    again.before = {chunk.content: chunk.blob for chunk in artifact.chunks}
    assert cut(snapshot, {UPPER: source}, again, Progress(), Stop()) == artifact
    assert not again.blobs


def _set(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update(members)


def _record(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["snapshot"].update(members)


@pytest.mark.parametrize(
    "change",
    [
        _set(version=2),
        _set(version=3),
        _set(chunk_bytes=4096),
        _set(chunk_bytes=0),
        _set(chunks=[]),
        _set(chunks=["sha256:../../x"] * 3),
        _set(places=[0, 0, 7, 1, 9]),
        _set(places=[0, 0, 7, 1, 7, 2]),
        _set(places=[9, 0, 7, 1, 1024, 2]),
        _set(places=[0, 0, 7, 1, 1025, 2]),
        _set(places=[-1, 0, 7, 1, 1024, 2]),
        _set(places=[0, 0, 7, 1, 1024, 3]),
        _set(places=[0, 0, 7, -1, 1024, 2]),
        _set(places=[0, 0, 7, 1]),
        _set(places=[0.0, 0, 7, 1, 1024, 2]),
        _set(places=[False, 0, 7, 1, 1024, 2]),
        _set(places={}),
        _set(snapshot=[]),
        _record(size_bytes=-1),
        _record(size_bytes=1 << 60),
        _record(size_bytes="1"),
        _record(lower_digest="sha256:"),
        _record(egress=[1]),
        _record(egress="internet"),
        _record(comment=1),
    ],
)
def test_a_config_that_lies_is_refused(artifact: Artifact, change: Callable[[dict[str, Any]], None]) -> None:
    """No number leads out of the disk, and nothing is left open."""
    manifest, config = documents(artifact)
    value = json.loads(config)
    change(value)
    with pytest.raises(DataError):
        parsed(manifest, json.dumps(value).encode())


@pytest.mark.parametrize(
    ("member", "value"),
    [("artifactType", None), ("artifactType", "application/x"), ("config", {}), ("layers", []), ("manifests", [])],
)
def test_a_manifest_of_something_else_is_refused(artifact: Artifact, member: str, value: object) -> None:
    """An image, another artifact, an index, and one without its chunks."""
    manifest, config = documents(artifact)
    changed = json.loads(manifest)
    changed[member] = value
    with pytest.raises(DataError):
        parsed(json.dumps(changed).encode(), config)


def test_a_chunk_that_lies_is_refused() -> None:
    """It is as long as it should be and has the right content, or it is nothing; no more is unpacked than that."""
    content = digest_bytes(b"x" * 4096)
    assert disk.unpack(disk.pack(b"x" * 4096), 4096, content, "it") == b"x" * 4096
    for data in (b"", b"no zstd", disk.pack(b"x" * 4095), disk.pack(bytes(1 << 26)), disk.pack(b"x" * 4096)[:-1]):
        with pytest.raises(DataError, match="it "):
            disk.unpack(data, 4096, content, "it ")
    with pytest.raises(DataError) as caught:
        disk.unpack(disk.pack(b"y" * 4096), 4096, content, "it")
    assert caught.value.code == "DIGEST_MISMATCH"


def test_a_file_and_back(tmp_path: Path) -> None:
    """A snapshot gives the same file each time, and is there again; that it was offline goes along."""
    pieces = {0: b"a" * 4096, 5 * MIB: os.urandom(MIB), GIB: b"end"}
    store, other = kept(tmp_path / "one", pieces), SnapshotStore(Paths(data=tmp_path / "d", run=tmp_path / "r"))
    one, two = tmp_path / "1.tar", tmp_path / "2.tar"
    assert save_to_file(store, "monday", one, Progress(), Stop()) == save_to_file(
        store, "monday", two, Progress(), Stop()
    )
    assert one.read_bytes() == two.read_bytes()
    load_snapshot(other, one, "tuesday", DEFAULT_LIMITS, progress=Progress(), stop=Stop())
    assert other.load("tuesday") == replace(SNAPSHOT, name="tuesday")
    assert other.upper("tuesday").stat().st_mode & 0o777 == 0o400
    with other.upper("tuesday").open("rb") as found:
        for offset, data in pieces.items():
            assert os.pread(found.fileno(), len(data), offset) == data
    assert other.upper("tuesday").stat().st_blocks * 512 < 4 * MIB
    with pytest.raises(ConflictError) as caught:
        load_snapshot(other, one, "tuesday", DEFAULT_LIMITS, progress=Progress(), stop=Stop())
    assert caught.value.code == "SNAPSHOT_ALREADY_EXISTS"


def test_memory_goes_along_when_it_is_asked_for(tmp_path: Path) -> None:
    """Once at either end: without, the disk alone goes, or comes.  What says something of one host stays there."""
    both = os.urandom(MIB)
    memory = {"memory": bytes(3 * MIB) + both + b"end", "state": os.urandom(5000), "empty": b""}
    store = remembered(tmp_path / "one", {7 * MIB: both}, {**memory, "memory.here": b"1"})
    alone, whole = tmp_path / "alone.tar", tmp_path / "whole.tar"
    save_to_file(store, "monday", alone, Progress(), Stop())
    save_to_file(store, "monday", whole, Progress(), Stop(), memory=True)
    assert whole.stat().st_size - alone.stat().st_size < MIB // 2, "what the disk has, too, goes once"

    other = SnapshotStore(Paths(data=tmp_path / "d", run=tmp_path / "r"))
    load_snapshot(other, whole, "disk", DEFAULT_LIMITS, progress=Progress(), stop=Stop())
    assert other.load("disk") == replace(SNAPSHOT, name="disk")
    assert not other.origin("disk").memory.exists()
    load_snapshot(other, whole, "all", DEFAULT_LIMITS, memory=True, progress=Progress(), stop=Stop())
    assert other.load("all") == replace(SNAPSHOT, name="all", memory=Shape(2, 512))
    came = other.origin("all").memory
    assert {path.name: path.read_bytes() for path in came.iterdir()} == memory
    assert {path.stat().st_mode & 0o777 for path in came.iterdir()} == {0o400}
    assert (came / "memory").stat().st_blocks * 512 < 2 * MIB
    for refused in (
        lambda: load_snapshot(other, alone, "x", DEFAULT_LIMITS, memory=True, progress=Progress(), stop=Stop()),
        lambda: save_to_file(other, "disk", tmp_path / "x", Progress(), Stop(), memory=True),
    ):
        with pytest.raises(UsageError) as caught:
            refused()
        assert caught.value.code == "NO_MEMORY"
    assert other.names() == ["all", "disk"]


def test_who_wants_the_disk_alone_has_it_after_a_try_with_memory(tmp_path: Path) -> None:
    """What an earlier try has brought of the memory does not stay."""
    store = remembered(tmp_path / "one", {7 * MIB: b"x"}, {"memory": os.urandom(MIB)})
    archive = tmp_path / "whole.tar"
    save_to_file(store, "monday", archive, Progress(), Stop(), memory=True)
    other = SnapshotStore(Paths(data=tmp_path / "d", run=tmp_path / "r"))

    def stop_late(event: object) -> None:
        if isinstance(event, PhaseEvent) and event.name == "commit":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_snapshot(other, archive, "x", DEFAULT_LIMITS, memory=True, progress=Progress(stop_late), stop=Stop())
    (part,) = other.scratch().glob(".*.part")
    assert (part / MEMORY / "memory").exists()
    load_snapshot(other, archive, "x", DEFAULT_LIMITS, progress=Progress(), stop=Stop())
    assert not other.origin("x").memory.exists()


def _memory(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["memory"].update(members)


def _memory_file(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["memory"]["files"][0].update(members)


@pytest.mark.parametrize(
    "change",
    [
        _set(version=1),
        _set(memory=None),
        _memory(cpus=0),
        _memory(cpus=True),
        _memory(memory_mb=1 << 40),
        _memory(memory_mb="512"),
        _memory(files=[]),
        _memory(files=[1]),
        _memory(files={}),
        _memory_file(name="memory/../x"),
        _memory_file(name="memory/.x"),
        _memory_file(name="upper.ext4"),
        _memory_file(name="memory/memory\n"),
        _memory_file(name="memory/memory.here"),
        _memory_file(name="memory/state"),
        _memory_file(size_bytes=-1),
        _memory_file(size_bytes=1 << 40),
        _memory_file(places=[0]),
        _memory_file(places=[4, 0]),
        _memory_file(places=[0, 99]),
    ],
)
def test_memory_that_lies_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """No name leads out of its folder, and no number out of its file."""
    store = remembered(tmp_path / "one", {}, {"memory": os.urandom(MIB), "state": b"state"})
    snapshot, files = store.files("monday", memory=True)
    artifact = cut(snapshot, files, Blobs(), Progress(), Stop())
    manifest, config = documents(artifact)
    assert parsed(manifest, config) == replace(artifact, snapshot=replace(snapshot, name=""))
    value = json.loads(config)
    change(value)
    with pytest.raises(DataError):
        parsed(manifest, json.dumps(value).encode())


@pytest.mark.parametrize("cut_at", [0, 512, 3000, 600_000, -20_000])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, cut_at: int) -> None:
    """There is no snapshot then, and one that is whole can come after it."""
    store = kept(tmp_path / "one", {5 * MIB: os.urandom(MIB), GIB: b"end"})
    whole, part = tmp_path / "1.tar", tmp_path / "2.tar"
    save_to_file(store, "monday", whole, Progress(), Stop())
    part.write_bytes(whole.read_bytes()[:cut_at])
    with pytest.raises(ShedError) as caught:
        load_snapshot(store, part, "x", DEFAULT_LIMITS, progress=Progress(), stop=Stop())
    assert str(part) in caught.value.message
    assert store.names() == ["monday"]
    load_snapshot(store, whole, "x", DEFAULT_LIMITS, progress=Progress(), stop=Stop())
    assert store.names() == ["monday", "x"]


def test_too_little_space_names_the_folder_of_all_snapshots(tmp_path: Path) -> None:
    """Not a file that its user never heard of."""
    store = kept(tmp_path / "here", {0: b"data"})
    archive = tmp_path / "one.tar"
    save_to_file(store, "monday", archive, Progress(), Stop())
    limits = replace(DEFAULT_LIMITS, disk_reserve=1 << 60)
    with pytest.raises(StorageError, match=f"too little space at {store.scratch()}: "):
        load_snapshot(store, archive, "x", limits, progress=Progress(), stop=Stop())


def test_what_came_before_a_failure_is_kept_for_a_week(tmp_path: Path) -> None:
    """A receiver that failed leaves its part, which the next one with the same key has, and a sweep takes when old."""
    store = SnapshotStore(Paths(data=tmp_path / "d", run=tmp_path / "r"))
    key = digest_bytes(b"key")
    with pytest.raises(ZeroDivisionError), store.receiving(key, SNAPSHOT) as folder:
        (folder / UPPER).write_bytes(b"a part")
        raise ZeroDivisionError
    (part,) = store.scratch().iterdir()
    store.sweep()
    assert part.exists()
    with (
        store.receiving(key, SNAPSHOT) as folder,
        pytest.raises(ConflictError, match="on its way"),
        store.receiving(key, SNAPSHOT),
    ):
        pytest.fail("two may not fill one disk")
    assert store.load("monday") == SNAPSHOT
    assert store.upper("monday").read_bytes() == b"a part"
    with pytest.raises(ZeroDivisionError), store.receiving(key, replace(SNAPSHOT, name="x")):
        raise ZeroDivisionError
    os.utime(part, (0, 0))
    store.sweep()
    assert not part.exists()
