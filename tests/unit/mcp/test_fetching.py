"""What comes from a shed into the user's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.client.copying import Place
from shed.errors import DataError, UsageError
from shed.mcp import files


def carry(source: Place, target: Place) -> None:
    """Make what a hostile shed sends, by the name of the source."""
    came = Path(target.path)
    if source.path == "file":
        came.write_text("good")
        return
    (came / "a").mkdir(parents=True)
    (came / "a/b.txt").write_text("good")
    if source.path == "hidden":
        (came / "a/.envrc").write_text("bad")
    if source.path == "link":
        (came / "a/link").symlink_to("/etc")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_plain_files_come(what: str, tmp_path: Path) -> None:
    """A file, or a folder of them, and nothing is left beside it."""
    files._fetch(carry, Place("dev", what), tmp_path / "x")
    found = tmp_path / ("x" if what == "file" else "x/a/b.txt")
    assert found.read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("what", ["hidden", "link"])
def test_what_this_machine_may_run_does_not_come(what: str, tmp_path: Path) -> None:
    """Nor anything else with it."""
    with pytest.raises(DataError):
        files._fetch(carry, Place("dev", what), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["there", ".x", "nowhere/x"])
def test_places_where_nothing_is_put(name: str, tmp_path: Path) -> None:
    """What is there already, hidden names, and folders that are not there."""
    (tmp_path / "there").touch()
    with pytest.raises(UsageError):
        files._fetch(carry, Place("dev", "file"), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
