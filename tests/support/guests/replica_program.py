"""The program that keeps a folder in a shed, run on this machine, and pairs of folders that it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from shed.client.sync_rules import Rule
from shed.client.twoway.carrying import Outcome
from shed.client.twoway.channel import program
from shed.client.twoway.pair import Pair
from shed.client.twoway.reconcile import Plan
from shed.client.twoway.watching import once
from shed.errors import BackendError, ShedError

_MAIN = "sys.modules['shed.replica.serve'].main()"
UNREADABLE = """
import os
real, entry_of_folder = os.open, sys.modules['shed.replica.folder']
def opened(name, *more, **named):
    if name == "shut":
        raise PermissionError(13, "Permission denied", name)
    return real(name, *more, **named)
entry_of_folder.os.open = opened
"""
"""A patch by which a folder ``shut`` cannot be opened."""


class Program:
    """A channel to the real program, as a shed's Python would run it."""

    def __init__(self, home: Path, *, words: list[str] | None = None) -> None:
        """`words` is another program, in its place."""
        command = words or [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", program()]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.writing, self.reading = self.process.stdin.fileno(), self.process.stdout.fileno()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def why(self) -> ShedError:
        """Return what it has said last."""
        _, errors = self.process.communicate()
        return BackendError(f"the program has ended: {errors.decode()[-2000:]}", code="EXEC_LOST")


def lying(home: Path, patch: str) -> Program:
    """Return the real program with a `patch` that is run before it begins; it may use `serve`, `wire` and `entry`."""
    names = "".join(f"{name} = sys.modules['shed.replica.{name}']\n" for name in ("serve", "wire", "entry"))
    return Program(home, words=[sys.executable, "-I", "-S", "-c", program().replace(_MAIN, f"{names}{patch}\n{_MAIN}")])


class Sides:
    """A folder `here` and one `there`, of which the other is the folder ``there`` of a shed with a home of its own."""

    def __init__(self, root: Path, *, exclude: tuple[str, ...] = ()) -> None:
        self.here, self.home, self.states = root / "here", root / "home", root / "states"
        self.there = self.home / "there"
        for folder in (self.here, self.there):
            folder.mkdir(parents=True)
        self.rule = Rule(self.here, "there", exclude)
        self.warnings: list[str] = []

    def pair(self, *, also: Collection[str] = (), force: bool = False) -> Pair:
        """Return the pair."""
        return Pair(
            self.rule, "dev", server="x", states_folder=self.states, also=also, force=force, warn=self.warnings.append
        )

    def sync(
        self,
        *,
        dry: bool = False,
        also: Collection[str] = (),
        force: bool = False,
        channel: Callable[[Path], Program] = Program,
    ) -> tuple[Plan, Outcome]:
        """Make both alike once."""
        run = channel(self.home)
        try:
            return once(self.pair(also=also, force=force), run, dry=dry)
        finally:
            run.close()


def content(folder: Path) -> dict[str, object]:
    """Return what is below a folder: what files hold, whether they may be run, and where links lead."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found
