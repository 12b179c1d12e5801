"""Two folders that are kept alike while they change: what is told on either side arrives on the other."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.client.copying import CopyError
from shed.client.twoway.carrying import Outcome
from shed.client.twoway.reconcile import Plan
from shed.client.twoway.watching import Watch
from shed.errors import BackendError
from shed.replica.news import News
from support.guests.replica_program import UNREADABLE, Program, Sides, content, lying
from support.waiting import wait_until


class Watched:
    """Two folders that are kept alike by a thread."""

    def __init__(self, sides: Sides, program: Program | None = None) -> None:
        self.sides = sides
        self.program = program or Program(sides.home)
        self.outcomes: list[Outcome] = []
        self.problem: BaseException | None = None
        self._ready = threading.Event()
        self._stop, self._stopping = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60), self.problem

    def _run(self) -> None:
        try:
            Watch(self.sides.pair(), self.program, self._told, self._stop).run(self._ready.set)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.problem = error
            self._ready.set()

    def _told(self, plan: Plan, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def alike(self) -> None:
        """Wait until both sides have the same."""
        wait_until(lambda: self._same() or self.problem is not None)
        assert self.problem is None

    def _same(self) -> bool:
        try:
            return content(self.sides.here) == content(self.sides.there)
        except OSError:
            return False

    def end(self) -> None:
        """End it, as ctrl-C does; it can be called twice."""
        if self._stopping < 0:
            return
        os.close(self._stopping)
        self._stopping = -1
        self._thread.join(60)
        self.program.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Two folders, of which one had something before."""
    sides = Sides(tmp_path)
    (sides.here / "first").write_text("x")
    watched = Watched(sides)
    yield watched
    watched.end()


def test_changes_arrive_on_the_other_side(watched: Watched) -> None:
    """Files, folders with what is in them, links, permissions, moves and deletions, both ways."""
    for mine, other in ((watched.sides.here, watched.sides.there), (watched.sides.there, watched.sides.here)):
        name = mine.name
        (mine / name).write_text("1")
        wait_until((other / name).exists)
        watched.alike()
        for number in range(5):
            (mine / name).write_text(str(number))
            watched.alike()
        (mine / name).chmod(0o755)
        watched.alike()
        (mine / f"deep-{name}/er/est").mkdir(parents=True)
        (mine / f"deep-{name}/er/est/file").write_text("x")
        (mine / "link").symlink_to("first")
        watched.alike()
        (mine / f"deep-{name}").rename(mine / f"moved-{name}")
        watched.alike()
        (mine / f"moved-{name}/er/est/later").write_text("y")
        watched.alike()
        shutil.rmtree(mine / f"moved-{name}")
        (mine / "link").unlink()
        watched.alike()
        assert (other / name).stat().st_mode & 0o777 == 0o755


def test_many_changes_at_once(watched: Watched) -> None:
    """More than can be told one by one."""
    for side in (watched.sides.here, watched.sides.there):
        for number in range(600):
            folder = side / f"{side.name}-{number % 20}"
            folder.mkdir(exist_ok=True)
            (folder / f"{number}").write_text(str(number))
    watched.alike()


def test_what_is_kept_is_told_the_next_time(watched: Watched) -> None:
    """Whoever ends it loses nothing: what was deleted meanwhile is deleted, and nothing else is done."""
    (watched.sides.here / "a").write_text("a")
    watched.alike()
    watched.end()
    (watched.sides.there / "a").unlink()
    _, outcome = watched.sides.sync()
    assert outcome.deleted_here == ["a"]


def test_a_lost_connection_ends_it(watched: Watched) -> None:
    """With an error after which the caller tries again; then all is compared."""
    watched.program.process.kill()
    wait_until(lambda: watched.problem is not None)
    assert isinstance(watched.problem, BackendError)
    (watched.sides.there / "meanwhile").write_text("x")
    again = Watched(watched.sides)
    again.alike()
    assert (watched.sides.here / "meanwhile").exists()
    again.end()


def test_a_folder_that_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    """What else changes still arrives."""
    sides = Sides(tmp_path)
    watched = Watched(sides, lying(sides.home, UNREADABLE))
    (sides.there / "shut").mkdir()
    (sides.there / "open").write_text("x")
    wait_until(lambda: (sides.here / "open").exists() or watched.problem is not None)
    wait_until(lambda: any("shut" in outcome.left for outcome in watched.outcomes) or watched.problem is not None)
    watched.end()
    assert watched.problem is None
    assert not (sides.here / "shut").exists()


@pytest.mark.parametrize("here", [True, False])
def test_too_many_folders_to_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool) -> None:
    """One error that says what to do, on either side."""
    sides = Sides(tmp_path)
    lie = "def take(self):\n    raise OSError(28, 'No space left on device')\nserve.News.take = take"
    watched = Watched(sides, Program(sides.home) if here else lying(sides.home, lie))

    def take(self: News) -> list[str]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if here:
        monkeypatch.setattr(News, "take", take)
    (sides.there / "new").write_text("x")
    wait_until(lambda: watched.problem is not None)
    watched.end()
    assert isinstance(watched.problem, CopyError)
    assert "cannot watch" in str(watched.problem)
    assert "max_user_watches" in str(watched.problem.hint)
