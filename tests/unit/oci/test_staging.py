"""Folders in which programs make blobs: nobody else's while they are in use, and swept when their owner is gone."""

from pathlib import Path

import pytest

from shed.oci.staging import staging_folder, sweep


def test_a_folder_in_use_is_not_swept(tmp_path: Path) -> None:
    """It goes at the end of its block."""
    with staging_folder(tmp_path) as work:
        (work / "file").touch()
        assert sweep(tmp_path) == 0
        assert (work / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_with_a_failure(tmp_path: Path) -> None:
    """With all that is in it."""
    with pytest.raises(ZeroDivisionError), staging_folder(tmp_path) as work:
        (work / "below").mkdir()
        (work / "below/file").touch()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_nobody_holds_is_swept(tmp_path: Path) -> None:
    """As a process that was killed leaves it."""
    left = tmp_path / ".staging-x.tmp"
    (left / "below").mkdir(parents=True)
    (left / "below/file").touch()
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
