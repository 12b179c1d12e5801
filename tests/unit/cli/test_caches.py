"""What was downloaded on this machine is shown by `system df`, and removed by `system prune --caches`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shed.cli import caches
from shed.cli.app import SHED
from shed.cli.options import Options
from shed.errors import UsageError


@pytest.fixture
def debs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloaded packages, with one in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SHED_SERVER", "unix:///nobody/listens")  # none is asked
    folder = tmp_path / "cache/shed/debs"
    folder.mkdir(parents=True)
    (folder / "one.deb").write_bytes(bytes(10000))
    return folder


def test_caches_go_alone(debs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a look, and with consent; what is beside them stays."""
    (tmp_path / "cache/other").mkdir()
    assert SHED(["system", "prune", "--caches", "--dry-run"], Options()) == 0
    assert "would delete" in capsys.readouterr().out
    with pytest.raises(UsageError, match="nobody can be asked"):
        SHED(["system", "prune", "--caches"], Options())
    assert (debs / "one.deb").exists()
    assert SHED(["system", "prune", "--caches", "--force", "--json"], Options()) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["caches"][0]["name"], said["dry_run"]) == (str(debs), False)
    assert said["size_bytes"] >= 10000
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["other"]
    assert SHED(["system", "prune", "--caches", "--force"], Options()) == 0
    assert "nothing is in" in capsys.readouterr().out


def test_they_are_counted(debs: Path) -> None:
    """As one more kind, and in the total."""
    usage: dict[str, Any] = {"kinds": {}, "total": {"size_bytes": 1, "disk_bytes": 2}}
    caches.add_to(usage)
    about = usage["kinds"]["caches"]
    assert (about["count"], about["items"][0]["name"]) == (1, "debs")
    assert about["size_bytes"] == 10000 + debs.stat().st_size
    assert usage["total"]["size_bytes"] == 1 + about["size_bytes"]
    assert usage["total"]["disk_bytes"] == 2 + about["disk_bytes"] > 10000


def test_what_is_not_ours_stays(debs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link leads to somebody else's files."""
    mine = tmp_path / "mine"
    os.rename(debs.parent, mine)  # noqa: PTH104
    debs.parent.symlink_to(mine)
    assert SHED(["system", "prune", "--caches", "--force"], Options()) == 0
    assert "nothing is in" in capsys.readouterr().out
    assert (mine / "debs/one.deb").exists()
