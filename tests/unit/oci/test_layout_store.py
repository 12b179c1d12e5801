"""The store: atomic, locked, verified, and a valid OCI layout at all times."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.budget import Limits
from shed.errors import DataError, NotFoundError, StorageError, UsageError
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import digest_bytes, hex_of
from shed.oci.manifest import REF_NAME
from shed.oci.store import LayoutStore
from support.images.minted import mint_small

OPEN_STORE = (
    "import sys; from pathlib import Path; from shed.oci.store import LayoutStore; store = "
    "LayoutStore(Path(sys.argv[1]))\n"
)
"""How the programs start that tests run as other processes."""


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store that does not exist on disk yet."""
    return LayoutStore(tmp_path / "images")


def files(store: LayoutStore) -> list[str]:
    """Return what is in the blob folder, lock files aside."""
    return (
        sorted(path.name for path in store.blobs.iterdir() if not path.name.endswith(".lock"))
        if store.blobs.exists()
        else []
    )


def published(store: LayoutStore, data: bytes, name: str) -> str:
    """Put a manifest into the store under a name and return its digest."""
    digest = store.put_bytes(data)
    store.publish(Descriptor(media.MANIFEST, digest, len(data)), name)
    return digest


def test_reading_an_empty_store_writes_nothing(store: LayoutStore) -> None:
    """Looking does not make folders."""
    assert store.tag_names() == []
    assert store.blob_digests() == []
    assert store.index().manifests == ()
    assert store.tag("x") is None
    assert not store.has(digest_bytes(b""))
    assert not store.root.exists()


def test_layout_files(store: LayoutStore) -> None:
    """The layout marker and an empty index are there before the first blob."""
    digest = store.put_bytes(b"data")
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((store.root / "index.json").read_text())["manifests"] == []
    assert store.blob_path(digest).stat().st_mode & 0o777 == 0o444
    assert store.blob_path(digest).read_bytes() == b"data"
    assert (store.size(digest), store.blob_digests()) == (4, [digest])


def test_ingest_verifies(store: LayoutStore) -> None:
    """A blob of the wrong digest or size is refused, and leaves nothing."""
    right = digest_bytes(b"right")
    assert store.ingest([b"ri", b"ght"], digest=right, size=5) == right
    with pytest.raises(DataError, match=r"digest mismatch: wanted sha256:\w{64}, got sha256:\w{64}"):
        store.ingest([b"wrong"], digest=digest_bytes(b"other"), size=5)
    for chunks in ([b"shor"], [b"too long"]):
        with pytest.raises(DataError, match="expected 5"):
            store.ingest(chunks, digest=digest_bytes(b"other"), size=5)
    assert files(store) == [hex_of(right)]


def test_ingest_stops_at_the_size(store: LayoutStore) -> None:
    """A stream that never ends is cut off at the size it should have."""

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(1000)
        pytest.fail("kept reading")

    with pytest.raises(DataError, match="more than 5000"):
        store.ingest(endless(), size=5000)
    assert files(store) == []


def test_interrupted_ingest_leaves_nothing(store: LayoutStore) -> None:
    """A source that fails midway leaves no file."""

    def failing() -> Iterator[bytes]:
        yield b"first"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.ingest(failing())
    assert files(store) == []


def test_full_disk_leaves_nothing(store: LayoutStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space is one clear error; the store stays whole and a retry works."""
    store.put_bytes(b"before")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"No space left on device") as caught:
        patch.setattr(os, "fsync", full)
        store.put_bytes(b"after")
    assert caught.value.hint is not None
    assert files(store) == [hex_of(digest_bytes(b"before"))]
    assert store.has(store.put_bytes(b"after"))


@pytest.mark.root
def test_really_full_disk(tmp_path: Path) -> None:
    """On a file system of one megabyte: the error is clear, nothing is left, and the space is free again."""
    if os.geteuid():
        pytest.skip("needs root to mount")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount], check=True)
    try:
        store = LayoutStore(mount / "images", Limits(disk_reserve=0))
        kept = store.put_bytes(b"kept")
        with pytest.raises(StorageError, match=r"No space left|too little space"):
            store.ingest(os.urandom(1 << 16) for _ in range(100))
        assert files(store) == [hex_of(kept)]
        store.ingest(os.urandom(1 << 16) for _ in range(8))
    finally:
        subprocess.run(["umount", mount], check=True)


def test_staged_blob_vanishes_unless_committed(store: LayoutStore) -> None:
    """A writer that uses the file directly gets the digest of what is in it."""
    with store.stage() as blob:
        blob.file.write(b"....")
        blob.file.seek(0)
        blob.file.write(b"abcd")
        digest = blob.commit()
    assert digest == digest_bytes(b"abcd")
    with store.stage() as blob:
        blob.write(b"never")
    assert files(store) == [hex_of(digest)]


def test_commit_mends_a_damaged_blob(store: LayoutStore) -> None:
    """A blob that was cut or altered on disk is replaced when it is written again; a good one keeps its file."""
    digest = store.put_bytes(b"content")
    path = store.blob_path(digest)
    inode = path.stat().st_ino
    store.ingest([b"content"])
    assert path.stat().st_ino == inode
    for damaged in (b"cont", b"CONTENT"):
        path.unlink()
        path.write_bytes(damaged)
        assert store.put_bytes(b"content") == digest
        assert path.read_bytes() == b"content"


def test_verify_notices_changes(store: LayoutStore) -> None:
    """A blob is read when it was never compared, or changed since, or when asked to; not otherwise."""
    digest = store.put_bytes(b"x" * 5000)
    path = store.blob_path(digest)
    store.verify(digest)
    path.chmod(0o644)
    store.verify(digest)
    with path.open("r+b") as file:
        file.write(b"y")
    with pytest.raises(DataError, match="digest mismatch"):
        store.verify(digest)
    os.truncate(path, 100)
    with pytest.raises(DataError, match="digest mismatch"):
        store.verify(digest)
    path.unlink()
    with pytest.raises(NotFoundError, match="not in the local store"):
        store.verify(digest)


def test_verify_again_reads_what_stat_cannot_see(store: LayoutStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known blob costs a `stat`; `again` reads it in any case."""
    digest = store.put_bytes(b"x")
    store.verify(digest)
    read: list[int] = []
    monkeypatch.setattr("shed.oci.verified.digest_fd", lambda fd: read.append(fd) or digest)  # type: ignore[func-returns-value]
    store.verify(digest)
    assert read == []
    store.verify(digest, again=True)
    assert len(read) == 1


def test_sweep_removes_only_what_nobody_writes(store: LayoutStore) -> None:
    """Leftovers of dead writers go at once; files of living ones stay."""
    store.put_bytes(b"blob")
    dead = store.blobs / ".staging-dead.tmp"
    dead.write_bytes(b"x")
    with store.stage() as living:
        assert store.sweep() == 1
        assert living.path.exists()
    assert not dead.exists()


def test_a_sweep_before_the_lock(store: LayoutStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is swept between its making and its locking is made again."""
    store.put_bytes(b"first")
    make = tempfile.mkstemp
    swept: list[int] = []

    def make_and_sweep(**options: Any) -> tuple[int, str]:
        made = make(**options)
        if not swept:
            swept.append(store.sweep())
        return made

    monkeypatch.setattr(tempfile, "mkstemp", make_and_sweep)
    with store.stage() as blob:
        blob.write(b"second")
        digest = blob.commit()
    assert swept == [1]
    assert store.blob_path(digest).read_bytes() == b"second"


def test_killed_writer_leaves_nothing_visible(store: LayoutStore) -> None:
    """A process killed while it writes leaves a temporary file that no reader sees and `sweep` removes."""
    program = (
        OPEN_STORE
        + "import os\nwith store.stage() as blob:\n blob.write(bytes(1000)); blob.file.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, store.root], check=False)
    assert done.returncode == -9
    assert store.blob_digests() == []
    assert len(files(store)) == 1
    assert store.sweep() == 1
    assert files(store) == []


def test_lock_files_stay_and_are_waited_for(store: LayoutStore) -> None:
    """A commit waits for whoever holds the blob's lock; lock files are never removed."""
    digest = digest_bytes(b"data")
    store.put_bytes(b"other")
    lock = store.blobs / f".{hex_of(digest)}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        program = OPEN_STORE + "print('go', flush=True); print(store.put_bytes(b'data'))"
        with subprocess.Popen([sys.executable, "-c", program, store.root], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "go\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(timeout=0.5)
            assert not store.has(digest)
            fcntl.flock(held, fcntl.LOCK_UN)
            assert writer.communicate(timeout=60)[0].strip() == digest
    assert lock.exists()


def test_tags(store: LayoutStore) -> None:
    """A tag names a manifest, in its file and in the index; moving it leaves the old manifest listed without a name."""
    first, second = published(store, b"{1}", "base"), published(store, b"{2}", "other")
    store.publish(Descriptor(media.MANIFEST, digest_bytes(b"{1}"), 3), "again")
    assert store.tag_names() == ["again", "base", "other"]
    tag = store.tag("base")
    assert tag is not None
    assert tag.digest == first
    assert tag.updated_at.endswith("Z")
    store.publish(Descriptor(media.MANIFEST, digest_bytes(b"{2}"), 3), "base")
    assert listed(store) == [(first, "again"), (second, "base"), (second, "other")]
    store.publish(Descriptor(media.MANIFEST, digest_bytes(b"{2}"), 3), "again")
    assert listed(store) == [(first, None), (second, "again"), (second, "base"), (second, "other")]
    store.publish(Descriptor(media.MANIFEST, digest_bytes(b"{1}"), 3), "new")
    assert listed(store)[0] == (first, "new")


def listed(store: LayoutStore) -> list[tuple[str, str | None]]:
    """Return digest and name of all entries of the index, in the order of digest and name."""
    order = {digest_bytes(b"{1}"): 1, digest_bytes(b"{2}"): 2}
    entries = [(entry.digest, entry.annotations.get(REF_NAME)) for entry in store.index().manifests]
    return sorted(entries, key=lambda entry: (order[entry[0]], entry[1] or ""))  # type: ignore[index]


def test_untag(store: LayoutStore) -> None:
    """Removing a tag keeps its manifest in the index."""
    digest = published(store, b"{1}", "base")
    store.untag("base")
    assert store.tag("base") is None
    assert listed(store) == [(digest, None)]
    with pytest.raises(NotFoundError, match="no image is called 'base'"):
        store.untag("base")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../x", "a b", "x" * 129, "a\0"])
def test_bad_tag_names(store: LayoutStore, name: str) -> None:
    """A tag is a file name, and never a path."""
    with pytest.raises(UsageError, match="invalid image name"):
        store.tag(name)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"digest": "../../etc/passwd"}', b'{"digest": 5}'])
def test_damaged_tag_file(store: LayoutStore, data: bytes) -> None:
    """A broken tag file is named in the error."""
    published(store, b"{1}", "base")
    (store.tags / "base.json").write_bytes(data)
    with pytest.raises(DataError, match=r"base|digest"):
        store.tag("base")


def test_a_damaged_index_can_be_moved_away(store: LayoutStore, tmp_path: Path) -> None:
    """The error says so; the next image that is published makes a new index, and no tag is missing from it."""
    first = mint_small(store, tmp_path, "first")
    path = store.root / "index.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"index\.json is not valid JSON") as caught:
        mint_small(store, tmp_path, "second")
    assert "move the file away" in (caught.value.hint or "")
    path.unlink()
    (store.tags / "broken.json").write_text("junk")
    second = mint_small(store, tmp_path, "second")
    found = {entry.annotations["org.opencontainers.image.ref.name"]: entry.digest for entry in store.index().manifests}
    assert found == {"first": first.manifest_digest, "second": second.manifest_digest}
    sizes = {entry.size == store.size(entry.digest) and str(entry.platform) for entry in store.index().manifests}
    assert sizes == {"linux/amd64"}


def test_publishing_at_the_same_time(store: LayoutStore) -> None:
    """Processes that publish at once do not lose each other's entries in the index."""
    program = (
        OPEN_STORE + "from shed.oci import media; from shed.oci.descriptor import Descriptor\n"
        "for n in range(4):\n data = f'{sys.argv[2]}-{n}'.encode(); d = store.put_bytes(data)\n"
        " store.publish(Descriptor(media.MANIFEST, d, len(data)), f'{sys.argv[2]}-{n}')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, store.root, name]) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert len(store.tag_names()) == 12
    assert sorted(entry.annotations[REF_NAME] for entry in store.index().manifests) == store.tag_names()


def test_read_bytes_verifies(store: LayoutStore) -> None:
    """Small blobs are compared with their digest whenever they are read; a v0.4 folder in a blob's place is
    explained.
    """
    digest = store.put_bytes(b"data")
    assert store.read_bytes(digest) == b"data"
    path = store.blob_path(digest)
    path.unlink()
    with pytest.raises(NotFoundError, match="image manifest sha256:"):
        store.read_manifest(digest)
    path.mkdir()
    with pytest.raises(DataError, match=r"v0\.4"):
        store.read_bytes(digest)
