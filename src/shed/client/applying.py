"""Putting a patch from a shed into a repository of this machine, by the git of this machine.

The patch is what a guest has written.  git refuses what leads out of the folder, or into ``.git``; what runs by itself
on this machine, or is no file, is left out unless its path was named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shed.client.dangers import UNPRINTABLE, Hooks, danger, hooks_of
from shed.client.patches import PatchError
from shed.errors import NotFoundError, UsageError
from shed.run import Completed, run
from shed.untrusted import told

_SUMMARY = re.compile(r" (?:create mode|mode change [0-7]+ =>) ([0-7]+) (.*)")
_MOVES = (" rename ", " copy ")
_LINK = "a symbolic link"
_KINDS = {0o120000: _LINK, 0o160000: "a commit of another repository"}
_PLAIN = {"100644", "100755"}
_GIT = """ulimit -v 2097152 2>/dev/null; exec git "$@\""""
"""Before it asks anybody, git unpacks what a patch says is binary: in 2 GiB of memory at most."""
_MOST_LEFT = 1000
"""Files that are left out: each is a word of a command line."""
_NO_GIT = "install it: sudo apt-get install git"


@dataclass(frozen=True, slots=True)
class Change:
    """One file that a patch changes."""

    path: str
    added: int | None
    """Lines; None for what is no text."""
    deleted: int | None
    danger: str
    """Why it is only applied when it was named; empty for a plain file."""


class Patch:
    """The patch in `file`, for the repository that the folder `folder` is in."""

    def __init__(self, file: Path, folder: Path) -> None:
        """Raises `NotFoundError` when there is no repository."""
        self._file = file
        found = run(["git", "-C", folder, "rev-parse", "--show-toplevel"], check=False, hint=_NO_GIT)
        if found.returncode:
            raise NotFoundError(
                f"{folder} is in no git repository", hint="name a folder of one; there you can look at it and undo it"
            )
        self.root = Path(found.stdout.decode(errors="surrogateescape").removesuffix("\n"))

    def changes(self) -> list[Change]:
        """Return what it changes.  Raises `PatchError` for what is no patch, or none that a shed has made."""
        special, hooks = self._special(), hooks_of(self.root)
        numbers = self._git("--numstat", "-z").stdout.decode(errors="surrogateescape").split("\0")
        return [
            Change(path, _count(added), _count(deleted), self._danger(path, special, hooks))
            for added, deleted, path in (entry.split("\t", 2) for entry in numbers if entry)
        ]

    def apply(self, changes: Sequence[Change], also: Collection[str], *, check: bool, merge: bool) -> list[Change]:
        """Apply what is plain, and of the rest what is named in `also`; return what was applied.

        With `check`, only try; with `merge`, leave conflicts in the files.  Otherwise nothing is changed
        when something does not apply.  Raises `UsageError` for a path in `also` that it does not change, `PatchError`.
        """
        unknown = set(also) - {change.path for change in changes}
        if unknown:
            raise UsageError(f"the patch does not change {told(min(unknown))}", hint="see its paths: --check")
        taken = [change for change in changes if not change.danger or change.path in also]
        left = [change.path for change in changes if change.danger and change.path not in also]
        if len(left) > _MOST_LEFT:
            raise PatchError(
                f"{len(left)} files are to be left out, which is too many",
                hint="take it as a file: shed diff NAME >FILE",
            )
        if taken:
            self._git(
                *(f"--exclude={_escaped(path)}" for path in left),
                *(["--check"] if check else []),
                *(["--3way"] if merge else []),
            )
        return taken

    def _special(self) -> dict[str, str]:
        """Return what is made that is no file, and why it is none.

        git writes names as they are, line ends too, which are a danger by themselves; so a name may add to this, and
        not take away from it.
        """
        found = {}
        for line in self._git("--summary").stdout.decode(errors="surrogateescape").split("\n"):
            if line.startswith(_MOVES):
                raise PatchError("the patch moves files, which no patch of a shed does", hint="take it by git")
            if (match := _SUMMARY.fullmatch(line)) and match[1] not in _PLAIN:
                found[match[2]] = _KINDS.get(int(match[1], 8) & 0o170000, "it has a mode of another kind")
        return found

    def _danger(self, path: str, special: Mapping[str, str], hooks: Hooks) -> str:
        """Return why a path is only changed when it was named, or nothing."""
        if not path.isprintable():
            return UNPRINTABLE
        try:
            if (self.root / path).is_symlink():  # git changes where it leads, and says nothing of that
                return _LINK
        except OSError as error:
            return str(error.strerror)
        return danger(path, hooks) or special.get(path, "")

    def _git(self, *options: str) -> Completed:
        merging = "--3way" in options and "--check" not in options
        before = self._unmerged() if merging else []
        words: list[str | Path] = ["git", "-C", self.root, "apply", "--whitespace=nowarn", *options, self._file]
        done = run(["sh", "-c", _GIT, *words], check=False, hint=_NO_GIT)
        if done.returncode:
            if merging and (unmerged := [path for path in self._unmerged() if path not in before]):
                raise PatchError(
                    f"the patch is applied to {self.root}, with conflicts: {told(' '.join(unmerged))}",
                    hint=f"settle them: git -C {self.root} status",
                )
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line]
            raise PatchError(
                f"the patch does not apply to {self.root}: {told(said[0] if said else done.returncode)}",
                hint="merge it: --merge; or take it as a file: shed diff NAME >FILE",
            )
        return done

    def _unmerged(self) -> list[str]:
        command: list[str | Path] = ["git", "-C", self.root, "diff", "--name-only", "--diff-filter=U", "-z"]
        return run(command, check=False).stdout.decode(errors="replace").split("\0")[:-1]


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _escaped(path: str) -> str:
    """Return the pattern that `path` alone matches."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)
