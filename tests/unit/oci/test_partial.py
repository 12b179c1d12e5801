"""What is here of a blob that is being downloaded: kept, continued, waited for, swept."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from shed.errors import DataError, StorageError, UnavailableError
from shed.oci.digest import digest_bytes, hex_of
from shed.oci.partial import partial_path, partials
from shed.oci.store import LayoutStore
from shed.progress import Stop

DATA = os.urandom(3_000_000)
DIGEST = digest_bytes(DATA)


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """An empty store."""
    return LayoutStore(tmp_path)


def cut(store: LayoutStore, data: bytes = DATA[:2_000_000]) -> Path:
    """Write a part of the blob, fail, and return where it is."""
    with pytest.raises(UnavailableError), store.partial(DIGEST, Stop()) as blob:
        blob.write(data)
        raise UnavailableError("the cable was pulled")
    return partial_path(store.blobs, DIGEST)


def finish(store: LayoutStore) -> int:
    """Write the rest of the blob and return how much was here."""
    with store.partial(DIGEST, Stop()) as blob:
        kept = blob.size
        blob.write(DATA[kept:])
        blob.commit(blob.digest())
    return kept


def test_what_was_cut_is_continued(store: LayoutStore) -> None:
    """The hash goes on too; then the file is the blob, read-only, and no part is left."""
    cut(store)
    assert finish(store) == 2_000_000
    assert store.intact(DIGEST)
    assert store.blob_path(DIGEST).stat().st_mode & 0o777 == 0o444
    assert partials(store.blobs) == {}


def test_a_writer_that_died_before_the_rename(store: LayoutStore) -> None:
    """It had made the file read-only."""
    path = cut(store, DATA)
    path.chmod(0o444)
    assert finish(store) == len(DATA)
    assert store.intact(DIGEST)


def test_nothing_is_kept_of_nothing(store: LayoutStore) -> None:
    """A blob that the registry refused leaves no file."""
    assert not cut(store, b"").exists()


@pytest.mark.parametrize("error", [DataError("wrong"), StorageError("full")])
def test_what_is_wrong_and_what_fills_the_disk_goes(store: LayoutStore, error: Exception) -> None:
    """What was kept earlier too."""
    path = cut(store)
    with pytest.raises(type(error)), store.partial(DIGEST, Stop()) as blob:
        blob.write(b"x")
        raise error
    assert not path.exists()


def test_a_failure_after_the_commit_leaves_the_blob(store: LayoutStore) -> None:
    """What has its name is not the part any more."""
    with pytest.raises(StorageError), store.partial(DIGEST, Stop()) as blob:
        blob.write(DATA)
        blob.commit(DIGEST)
        raise StorageError("the folder cannot be synced")
    assert store.intact(DIGEST)


def test_it_is_begun_anew(store: LayoutStore) -> None:
    """Hash and file forget what was there."""
    cut(store, b"something else")
    with store.partial(DIGEST, Stop()) as blob:
        blob.clear()
        blob.write(DATA)
        assert blob.commit() == DIGEST
    assert store.intact(DIGEST)


def test_another_waits_and_finds_it(store: LayoutStore) -> None:
    """The file that it waited for has become the blob: it gets a new one, which is empty and vanishes."""
    found = []

    def other() -> None:
        with store.partial(DIGEST, Stop()) as blob:
            found.append((blob.size, store.intact(DIGEST)))

    with store.partial(DIGEST, Stop()) as blob:
        thread = threading.Thread(target=other)
        thread.start()
        blob.write(DATA)
        thread.join(0.3)
        assert found == []
        blob.commit(DIGEST)
    thread.join(60)
    assert found == [(0, True)]
    assert [path.name for path in store.blobs.iterdir() if "lock" not in path.name] == [hex_of(DIGEST)]


def test_who_waits_can_be_stopped(store: LayoutStore) -> None:
    """And takes nothing from who writes."""
    stop = Stop()
    with store.partial(DIGEST, Stop()) as blob:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(UnavailableError), store.partial(DIGEST, stop):
            raise AssertionError
        blob.write(DATA)
        blob.commit(DIGEST)
    assert store.intact(DIGEST)


def test_a_sweep_takes_what_nobody_goes_on_with(store: LayoutStore) -> None:
    """What is fresh stays, and what is held, however old."""
    path = cut(store)
    assert store.sweep() == 0
    os.utime(path, (1, 1))
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert store.sweep() == 0
    assert store.sweep() == 1
    assert not path.exists()
