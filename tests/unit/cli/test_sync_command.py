"""`shed sync`: what ends it, and what is only told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from shed.cli import sync, twoway
from shed.client.mirroring import Mirror
from shed.client.sync_rules import Rule
from shed.errors import NotFoundError, UsageError
from shed.progress import Event, WarningEvent

ARGS = SimpleNamespace(name="dev", force=False, dry_run=False)


def test_a_shed_that_is_not_there_ends_it(tmp_path: Path) -> None:
    """A file that is not here is told, and passed over."""

    def run(command: list[str], stdin: object = None) -> bytes:
        raise NotFoundError("there is no shed 'dev'", code="SHED_NOT_FOUND")

    (tmp_path / "here").write_text("x")
    heard: list[Event] = []
    mirror = Mirror(run)
    assert sync._bring(mirror, [Rule(tmp_path / "absent", "x")], ARGS, heard.append) == []
    assert [event.message for event in heard if isinstance(event, WarningEvent)] == [f"there is no {tmp_path}/absent"]
    with pytest.raises(NotFoundError, match="no shed"):
        sync._bring(mirror, [Rule(tmp_path / "here", "x")], ARGS, heard.append)


@pytest.mark.parametrize(("also", "two_way"), [([".envrc"], False), (["a", "sub/.GIT/config"], True)])
def test_what_cannot_be_named(also: list[str], two_way: bool) -> None:
    """Nothing is left out one way; and nothing of git is carried, named or not."""
    with pytest.raises(UsageError, match="--also"):
        twoway.check(SimpleNamespace(also=also, two_way=two_way))
