"""Folders of the host in a guest: what a request says of them, and how they are unmounted, with this host's kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.guest.configure import mounts as module
from shed.guest.configure.mounts import mount_share, unmount_share
from shed.guest.configure.request import Mount, mounts
from shed.guest.configure.steps import StepError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for what has all folders; nothing of a test stays mounted."""
    every = tmp_path / "private/all"
    every.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(every)], check=True)
    (every / "held/data").mkdir(parents=True)
    (every / "held/data/file").write_text("text")
    monkeypatch.setattr(module, "_ALL", str(every))
    yield every
    for place in (tmp_path / "a/b", every):
        while os.path.ismount(place):
            subprocess.run(["umount", "-l", str(place)], check=True)


def one(target: Path, *, readonly: bool, source: str = "held/data") -> Mount:
    (mount,) = mounts({"mounts": [{"tag": "mounts", "source": source, "target": str(target), "readonly": readonly}]})
    return mount


def test_what_a_request_says() -> None:
    """A folder without a source is all that has the tag."""
    plain, part = mounts({"mounts": [{"tag": "a", "target": "/w"}, {"tag": "b", "target": "/x", "source": "held/y"}]})
    assert (plain.source, part.source, part.readonly) == ("", "held/y", False)


@pytest.mark.root
def test_a_folder_is_bound_to_its_place(folder: Path, tmp_path: Path) -> None:
    """The place is made; one to be read is read-only here, too, while the others are not."""
    target = tmp_path / "a/b"
    mount_share(one(target, readonly=True))
    assert (target / "file").read_text() == "text"
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()
    (folder / "held/data/new").touch()
    with pytest.raises(StepError, match="No such file"):
        mount_share(one(target, readonly=False, source="held/none"))


@pytest.mark.root
def test_a_folder_that_is_used(folder: Path, tmp_path: Path) -> None:
    """It stays, unless it is forced; what is not mounted is fine; with the last one what has all of them goes."""
    target = tmp_path / "a/b"
    mount_share(one(target, readonly=False))
    with (target / "file").open():
        assert not unmount_share(str(target), force=False, last=True)
        assert os.path.ismount(target)
        assert os.path.ismount(folder)
        assert unmount_share(str(target), force=True, last=False)
    assert not os.path.ismount(target)
    assert unmount_share(str(target), force=False, last=True)
    assert not os.path.ismount(folder)
