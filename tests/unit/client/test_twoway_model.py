"""Two folders that are kept alike, against a model: random edits on both sides, with kills of either end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.client.twoway.remote import Remote
from support.guests.replica_program import Sides, content

NAMES = ["a", "b", "A", "c-d", b"\xff\xfe".decode(errors="surrogateescape"), "sp ace"]
CALLS = ("rename", "link", "unlink", "mkdir", "rmdir", "symlink", "write")
"""Before each of them a client may be killed."""


class Edits:
    """Random edits of one folder; what each file holds is there once and never again, and always as long."""

    count = 0

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance

    def paths(self) -> list[Path]:
        """Return all that is there."""
        return sorted(self._folder.rglob("*"))

    def edit(self) -> None:
        """Do one thing."""
        do = self._chance.choice(
            [self._write, self._write, self._write, self._delete, self._folder_made, self._move, self._run, self._link]
        )
        do()

    def _some(self) -> Path:
        depth = self._chance.choice([1, 1, 2, 2, 3])
        return self._folder.joinpath(*(self._chance.choice(NAMES) for _ in range(depth)))

    def _write(self) -> None:
        path = self._some()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink():
                path.unlink()
            Edits.count += 1
            path.write_text(f"{Edits.count:08d}")

    def _delete(self) -> None:
        if there := self.paths():
            path = self._chance.choice(there)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _folder_made(self) -> None:
        with contextlib.suppress(OSError):
            self._some().mkdir(parents=True)

    def _move(self) -> None:
        if there := self.paths():
            with contextlib.suppress(OSError):
                target = self._some()
                if not os.path.lexists(target):
                    self._chance.choice(there).rename(target)

    def _run(self) -> None:
        files = [path for path in self.paths() if path.is_file() and not path.is_symlink()]
        if files:
            path = self._chance.choice(files)
            path.chmod(path.stat().st_mode ^ 0o111)

    def _link(self) -> None:
        with contextlib.suppress(OSError):
            Edits.count += 1
            self._some().symlink_to(f"goal-{Edits.count}")


def held(folder: Path) -> dict[str, object]:
    """Return what files hold, whether they may be run, and where links lead, by their paths."""
    return {path: what for path, what in content(folder).items() if what is not None}


def killed_at(step: int, sides: Sides, *, program: bool) -> None:
    """Make both alike in a process that is killed, or kills the program in the shed, at its `step`th change."""
    child = os.fork()
    if child == 0:
        try:
            _run_until(step, sides, program=program)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _run_until(step: int, sides: Sides, *, program: bool) -> None:
    left = step
    kill: Callable[[], object] = lambda: os._exit(9)  # noqa: E731

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def counting(*args: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                kill()
            return call(*args, **named)

        return counting

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    start = Remote.__init__

    def begin(remote: Remote, channel: object) -> None:
        nonlocal kill
        start(remote, channel)  # type: ignore[arg-type]
        if program:
            kill = channel.process.kill  # type: ignore[attr-defined]

    Remote.__init__ = begin  # type: ignore[method-assign,assignment]
    sides.sync()


def settled(sides: Sides) -> None:
    """Make both alike, which is done at once, and then nothing is left to be done."""
    sides.sync()
    while any(".shed-sync-" in path for path in content(sides.there)):  # the program of one that was killed still ends
        sides.sync()
    assert content(sides.here) == content(sides.there)
    plan, outcome = sides.sync()
    assert plan.idle, plan
    assert (outcome.failed, outcome.left, outcome.again) == ({}, {}, set())


def check(
    before: dict[str, object], here: dict[str, object], there: dict[str, object], after: dict[str, object]
) -> None:
    """Hold the outcome against what both sides had `before`, and made of it: nothing new is lost, nothing old goes."""
    for mine in (here, there):
        made = {what for path, what in mine.items() if before.get(path) != what}
        assert made <= set(after.values())
    kept = {path: what for path, what in before.items() if here.get(path) == there.get(path) == what}
    assert kept.items() <= after.items()


@pytest.fixture
def sides() -> Iterator[Sides]:
    """Two folders, in memory where that is: what is kept waits for the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Sides(Path(folder))


@pytest.mark.parametrize("seed", range(12))
def test_edits_on_both_sides(sides: Sides, seed: int) -> None:
    """What is new on either side is there in the end, what was deleted is not, and in conflicts ours has the name."""
    chance = random.Random(seed)
    ours, theirs = Edits(sides.here, chance), Edits(sides.there, chance)
    for _ in range(6):
        before = held(sides.here)
        for edits in (ours, theirs):
            for _ in range(chance.randrange(8)):
                edits.edit()
        here, there = held(sides.here), held(sides.there)
        settled(sides)
        after = held(sides.here)
        check(before, here, there, after)
        for mine, other in ((here, there), (there, here)):
            gone = {what for path, what in before.items() if path not in mine and other.get(path) == what}
            stayed = {what for path, what in after.items() if ".conflict-" not in path}
            assert not gone & stayed - {*mine.values()}
        for path, what in here.items():
            if path in there and before.get(path) not in {what, there[path]}:
                assert after[path] == what
    assert sides.warnings == []


@pytest.mark.parametrize("seed", range(12))
def test_edits_and_kills(sides: Sides, seed: int) -> None:
    """Whoever is killed, and when: nothing is half there, nothing new is lost, nothing goes that nobody deleted."""
    chance = random.Random(1000 + seed)
    ours, theirs = Edits(sides.here, chance), Edits(sides.there, chance)
    for _ in range(4):
        before = held(sides.here)
        for edits in (ours, theirs):
            for _ in range(chance.randrange(8)):
                edits.edit()
        here, there = held(sides.here), held(sides.there)
        for _ in range(chance.randrange(1, 4)):
            killed_at(chance.randrange(1, 40), sides, program=chance.random() < 0.4)
            whole = {*before.values(), *here.values(), *there.values()}
            for side in (sides.here, sides.there):
                assert {what for path, what in held(side).items() if ".shed-sync-" not in path} <= whole
        settled(sides)
        check(before, here, there, held(sides.here))
