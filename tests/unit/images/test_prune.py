"""What keeps an image, what a prune removes, and everything that makes it refuse."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from shed.config.paths import Paths
from shed.errors import ShedError, StorageError, UnavailableError
from shed.images import references
from shed.images.bootkit.build import save_kit
from shed.images.bootkit.kit import KIT_FILE
from shed.images.prune import Garbage, Plan, execute, plan, prune
from shed.images.references import find_image
from shed.images.resolve import resolve_image
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes, hex_of
from shed.oci.leases import Lease, Leased
from shed.oci.manifest import Index
from shed.oci.store import LayoutStore
from shed.progress import Stop
from shed.sheds import metadata
from shed.sheds.pins import find_pins, pins
from support.images.doubts import DOUBTS, damage_shed
from support.images.minted import small_kit
from support.images.stored import image_parts, put_image, put_shed, put_snapshot


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """The folders of a server."""
    return Paths(tmp_path / "data", tmp_path / "run")


@pytest.fixture
def store(paths: Paths) -> LayoutStore:
    """Its store, which does not exist on disk yet."""
    return LayoutStore(paths.images)


def pruned(paths: Paths, *, dry_run: bool = False, configured: Mapping[str, str] | None = None) -> Plan:
    """Prune as the server does."""
    return prune(LayoutStore(paths.images), lambda: pins(paths), configured or {}, dry_run=dry_run)


def blobs(content: str, *, layers: int = 1) -> set[Digest]:
    """Return the digests of all blobs of an image, its manifest too."""
    manifest, parts = image_parts(content, layers=layers)
    return {digest_bytes(manifest.encode()), *map(digest_bytes, parts)}


def test_an_empty_store_has_nothing_to_remove(paths: Paths) -> None:
    """And looking makes no folder."""
    assert pruned(paths) == Plan((), frozenset(), ())
    assert not paths.images.exists()


def test_what_nobody_needs_goes(store: LayoutStore, paths: Paths) -> None:
    """A manifest without a tag, its own blobs, its entries and records; what another image shares stays."""
    kept, gone = put_image(store, "kept", "kept"), put_image(store, "gone", layers=3)
    references.record(store, "example.org/gone:v1", gone)
    references.record(store, "example.org/kept:v1", kept)
    for digest in store.inventory():
        store.verify(digest)
    preview = pruned(paths, dry_run=True)
    assert set(store.inventory()) == blobs("kept") | blobs("gone", layers=3)
    plan = pruned(paths)
    assert plan == preview
    assert {item.digest for item in plan.garbage} == blobs("gone", layers=3) - blobs("kept")
    assert [(item.digest, item.reference) for item in plan.garbage if item.kind == "image"] == [
        (gone, "example.org/gone:v1")
    ]
    assert plan.images == 1
    assert plan.size_bytes == 6 * 4096
    assert set(store.inventory()) == blobs("kept")
    assert {path.name for path in (store.root / "verified").iterdir()} == {hex_of(digest) for digest in blobs("kept")}
    assert [entry.digest for entry in store.index().manifests] == [kept]
    assert references.all_references(store) == [("example.org/kept:v1", kept)]
    assert pruned(paths) == Plan((), frozenset(), ())


def test_a_shed_a_snapshot_and_a_create_keep_their_image(store: LayoutStore, paths: Paths) -> None:
    """All of it, though it has no name; a shed's record can lack while its marker is fresh, and no longer."""
    digests = {name: put_image(store, name, layers=2) for name in ("shed", "snapshot", "create", "old")}
    put_shed(paths, "dev", digests["shed"])
    put_snapshot(paths, "snap", digests["snapshot"])
    for name, created in (("create", metadata.now()), ("old", "2020-01-01T00:00:00Z")):
        (paths.instances / name).mkdir()
        metadata.save_marker(paths.instances / name, metadata.Marker(name, "x", digests[name], created))
    for other in (".dev.lock", ".odd.new", ".odd.gone", "note.txt"):
        (paths.instances / other).touch()
    assert [item.digest for item in pruned(paths).garbage if item.kind == "image"] == [digests["old"]]
    assert set(store.inventory()) == blobs("shed", layers=2) | blobs("snapshot", layers=2) | blobs("create", layers=2)
    shutil.rmtree(paths.instances / "dev")
    shutil.rmtree(paths.snapshots / "snap")
    assert pruned(paths).images == 2


def test_a_live_lease_keeps_what_it_names(store: LayoutStore, paths: Paths) -> None:
    """Single blobs and whole images; when it ends, nothing keeps them."""
    digest = put_image(store, "image")
    single = store.put_bytes(b"single")
    with store.lease() as lease:
        lease.image(digest)
        lease.image(digest_bytes(b"a manifest that is still to come"))
        lease.blobs(single, digest_bytes(b"a blob that is still to come"))
        assert pruned(paths).garbage == ()
    assert {item.digest for item in pruned(paths).garbage} == {single, *blobs("image")}
    assert list((store.root / "leases").iterdir()) == []


def test_an_image_that_gets_its_names_while_a_prune_looks(store: LayoutStore, paths: Paths) -> None:
    """Its lease keeps entries and records too, though no tag had been seen."""
    put_image(store, "gone")

    class Meanwhile(dict[str, str]):
        def items(self) -> Any:  # asked for when all tags are read
            references.record(store, "example.org/new:v1", put_image(store, "new", "new", held=lease))
            return super().items()

    lease = cast(Lease, Mock())  # a real one cannot grow as long as a prune looks
    execute(store, plan(store, Leased(frozenset(blobs("new")), frozenset()), [], Meanwhile(default_image="other")))
    assert set(store.inventory()) == blobs("new")
    tag = store.tag("new")
    assert tag is not None
    assert [entry.digest for entry in store.index().manifests] == [tag.digest]
    assert references.lookup(store, "example.org/new:v1") == tag.digest


def test_configured_references_keep_their_image(store: LayoutStore, paths: Paths) -> None:
    """By the entry of the reference, or as a digest; also when the image could not be booted as it is."""
    by_ref, by_digest, rootless = put_image(store, "a"), put_image(store, "b"), put_image(store, "c", root=False)
    references.record(store, "example.org/a:v1", by_ref)
    references.record(store, "example.org/c:v1", rootless)
    names = {
        "default_image": "example.org/a:v1",
        "alias b": by_digest,
        "alias c": "example.org/c:v1",
        "alias d": "example.org/none:v1",
    }
    assert pruned(paths, configured=names).garbage == ()
    del names["alias c"]
    assert [item.digest for item in pruned(paths, configured=names).garbage if item.kind == "image"] == [rootless]


def test_the_kit_stays(store: LayoutStore, paths: Paths) -> None:
    """New images are made with it."""
    kit = small_kit(store)
    save_kit(store, kit)
    assert pruned(paths).garbage == ()
    (store.root / KIT_FILE).unlink()
    assert {item.digest for item in pruned(paths).garbage} == {kit.kernel, kit.initrd, kit.runtime}


def test_an_index_of_another_tool(store: LayoutStore, paths: Paths) -> None:
    """It stays with all it lists as long as one of that is needed, and goes with the last."""
    one, two = put_image(store, "one", "one"), put_image(store, "two")
    data = Index((Descriptor(media.MANIFEST, one, 1), Descriptor(media.MANIFEST, two, 1))).encode()
    digest = store.put_bytes(data)
    index = store.root / "index.json"
    entries = json.loads(index.read_bytes())
    entries["manifests"].append({"mediaType": media.INDEX, "digest": digest, "size": len(data)})
    index.write_text(json.dumps(entries))
    assert pruned(paths).garbage == ()
    store.untag("one")
    assert {item.digest for item in pruned(paths).garbage} == {digest, *blobs("one"), *blobs("two")}
    assert store.index().manifests == ()


def test_what_is_missing_is_no_reason_to_refuse(store: LayoutStore, paths: Paths) -> None:
    """Boot-only images lack layers; a tag may outlive its manifest; the prune goes on and removes neither."""
    boot_only, stale = put_image(store, "boot-only", "boot-only"), put_image(store, "stale", "stale")
    store.blob_path(store.read_manifest(boot_only).layers[0].digest).unlink()
    store.blob_path(stale).unlink()
    pruned(paths)
    assert resolve_parts(store, "boot-only") == 4
    assert store.tag_names() == ["boot-only", "stale"]
    assert {entry.digest for entry in store.index().manifests} == {boot_only, stale}


def resolve_parts(store: LayoutStore, name: str) -> int:
    """Return how many of the files that the image boots from are here."""
    image = resolve_image(store, name)
    return sum(path.is_file() for path in (image.kernel, image.initrd, image.root, image.runtime))


def test_the_cache_of_the_version_before(store: LayoutStore, paths: Paths) -> None:
    """Root file systems that v0.5.1 kept by manifest go unless that is needed."""
    kept, gone = put_image(store, "kept", "kept"), put_image(store, "gone")
    cache = store.root / "cache/sha256"
    cache.mkdir(parents=True)
    for digest in (kept, gone):
        (cache / f"{hex_of(digest)}.erofs").write_bytes(bytes(8192))
    (cache / "notes.erofs").write_text("not one of ours")
    assert [(item.digest, item.size_bytes) for item in pruned(paths).garbage if item.kind == "cache"] == [(gone, 8192)]
    assert {path.name for path in cache.iterdir()} == {f"{hex_of(kept)}.erofs", "notes.erofs"}


def test_entries_that_say_nothing_go(store: LayoutStore, paths: Paths) -> None:
    """References that are damaged, or whose image is not here."""
    digest = put_image(store, "base", "base")
    references.record(store, "example.org/base:v1", digest)
    references.record(store, "example.org/gone:v1", digest_bytes(b"gone"))
    (store.root / "refs/junk.json").write_text("junk")
    pruned(paths)
    assert [path.name for path in (store.root / "refs").iterdir()] == [
        f"{hex_of(digest_bytes(b'example.org/base:v1'))}.json",
    ]


@pytest.mark.parametrize("make_doubt", DOUBTS, ids=lambda make: make.__name__)
def test_any_doubt_keeps_everything(
    store: LayoutStore, paths: Paths, make_doubt: Callable[[Paths, Digest], Path]
) -> None:
    """The prune refuses before it deletes anything, names the file, and says what to do; a dry run does the same."""
    put_image(store, "garbage")
    named = make_doubt(paths, put_image(store, "base", "base"))
    before = set(store.inventory())
    for dry_run in (True, False):
        with pytest.raises(ShedError) as caught:
            pruned(paths, dry_run=dry_run, configured={"default_image": "example.org/configured:v1"})
        assert str(named) in caught.value.message
        assert caught.value.hint
    assert set(store.inventory()) == before


def test_readers_warn_and_go_on(store: LayoutStore, paths: Paths) -> None:
    """What stops a prune is a warning for whoever only shows something."""
    digest = put_image(store, "base", "base")
    damage_shed(paths, digest)
    put_shed(paths, "other", digest)
    put_snapshot(paths, "snap", digest)
    found, errors = find_pins(paths)
    assert [pin.holder for pin in found] == ["shed 'other'", "snapshot 'snap'"]
    (error,) = errors
    assert "dev" in error.message


@pytest.mark.parametrize("moment", range(1, 14))
def test_a_crash_at_any_moment_leaves_a_valid_layout(
    store: LayoutStore, paths: Paths, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Everything that is listed is complete, what is needed is untouched, and the next prune removes the rest."""
    put_image(store, "kept", "kept")
    for name in ("one", "two"):
        references.record(store, f"example.org/{name}:v1", put_image(store, name))
    for digest in store.inventory():
        store.verify(digest)
    left = moment
    unlink, rename = Path.unlink, Path.rename

    class Crash(BaseException):
        pass

    def counted(path: Path, *args: object, work: Callable[..., object], **options: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            raise Crash
        return work(path, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Path, "unlink", lambda path, *a, **o: counted(path, *a, work=unlink, **o))
        patch.setattr(Path, "rename", lambda path, *a, **o: counted(path, *a, work=rename, **o))
        pruned(paths)
    for entry in store.index().manifests:
        manifest = store.read_manifest(entry.digest)
        assert all(
            store.has(digest) for digest in (manifest.config.digest, *(layer.digest for layer in manifest.layers))
        )
    assert blobs("kept") <= set(store.inventory())
    assert references.lookup(store, "example.org/one:v1") is None or find_image(store, "example.org/one:v1")
    pruned(paths)
    assert set(store.inventory()) == blobs("kept")
    assert references.all_references(store) == []


def test_a_disk_that_refuses(store: LayoutStore, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that names the file."""
    put_image(store, "gone")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match="Read-only file system"):
        pruned(paths)


def test_lock_files_stay(store: LayoutStore, paths: Paths) -> None:
    """They are never removed; a second holder could get a new file of the same name."""
    gone = put_image(store, "gone")
    before = set(store.root.rglob("*.lock")) | set(store.root.rglob(".*.lock"))
    pruned(paths)
    assert not store.has(gone)
    assert len(before) > 5
    assert all(path.exists() for path in before)


def test_what_a_pull_left_goes_unless_one_is_at_it(store: LayoutStore, paths: Paths) -> None:
    """Counted like everything else; whoever leases the blob may be about to go on with it."""
    digest = digest_bytes(b"a blob that did not come to its end")
    with pytest.raises(UnavailableError), store.partial(digest, Stop()) as blob:
        blob.write(b"a blob")
        raise UnavailableError("cut")
    with store.lease() as lease:
        lease.blobs(digest)
        assert pruned(paths).garbage == ()
    assert pruned(paths, dry_run=True).garbage == (Garbage("partial", digest, 4096),)
    assert pruned(paths).size_bytes == 4096
    assert pruned(paths).garbage == ()
