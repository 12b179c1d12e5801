"""`shed diff`, `shed apply`: what has changed in a repository of a shed, shown here, or taken into one of ours."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.cli.output import confirm, done, waiting
from shed.errors import UsageError
from shed.terminal.output import emit, note, say, table, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

    from shed.cli.options import Options
    from shed.client.applying import Change

_FOLDER = option("--folder", "FOLDER", "the repository in the shed (default: the workspace)")
_BASE = option("--base", "COMMIT", "from where (default: what it has of its upstream, or what was cloned)")
_USER = option("-u, --user", "USER", "run git in the shed as this user (default: the shed's own user)")
_COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}
_PLAIN = "\x1b[0m"
_SHOWN = 1000
"""Files that are listed before a question."""


@command(
    "diff",
    SHED,
    _FOLDER,
    _BASE,
    _USER,
    flag("--image", "instead, name what is other in the shed than in its image: A added, M changed, D deleted"),
    examples=["shed diff dev", "shed diff dev >work.patch", "shed diff dev --base HEAD~3", "shed diff dev --image"],
)
def diff(args: Any, options: Options) -> int:
    """Show what has changed in a repository of a shed, committed or not, as a patch.

    On a terminal characters that a terminal would obey are shown as escapes.  In a file or a pipe it is what
    `git apply` takes; `shed apply` takes it into a repository here, without what would run by itself.
    """
    if args.image:
        return _beside_the_image(args, options)
    if options.json:
        raise UsageError("a patch is no JSON", hint="leave out --json")
    if not sys.stdout.isatty():
        _write(args, options, lambda data: write_all(1, data))
        return 0
    from shed.text import Watched

    watched, lines = Watched(), _Lines(sys.stdout, colours=not os.environ.get("NO_COLOR"))
    _write(args, options, lambda data: lines.show(watched.feed(data)))
    lines.show(watched.feed(b"", last=True))
    return 0


def _beside_the_image(args: Any, options: Options) -> int:
    """Show what has changed of the image, a line for each, or as JSON."""
    from shed.client.image_changes import KINDS, changes
    from shed.text import visible

    if args.folder or args.base or args.user:
        raise UsageError("--image is about all of the shed", hint="leave out --folder, --base and --user")
    found: list[dict[str, str]] = []

    def tell(kind: str, path: str) -> None:
        if options.json:
            found.append({"change": KINDS[kind], "path": path})
        else:
            say(f"{kind} {visible(path)}")

    changes(
        client_of(args.name, options).address,
        args.name,
        tell,
        on_start=lambda: note(f"Starting shed {args.name}..."),
    )
    if options.json:
        emit({"changes": found})
    return 0


class _Lines:
    """Shows the lines of a patch on a terminal, each in its colour, as far as they have come."""

    def __init__(self, out: TextIO, *, colours: bool) -> None:
        self._out = out
        self._colours = _COLOURS if colours else {}
        self._begins = True
        self._colour = ""

    def show(self, text: str) -> None:
        """Show `text`, which a terminal may have."""
        for line in text.splitlines(keepends=True):
            if self._begins:
                self._colour = self._colours.get(line[0], "")
                self._out.write(self._colour)
            self._begins = line.endswith("\n")
            end = f"{_PLAIN if self._colour else ''}\n" if self._begins else ""
            self._out.write(line.removesuffix("\n") + end)


@command(
    "apply",
    SHED,
    argument("DIR", "folder of a git repository here (default: this one)", key="target", count="?"),
    _FOLDER,
    _BASE,
    _USER,
    option("--also", "PATH", "apply this one, too, which is left out else; can be repeated", repeat=True),
    flag("--check", "only say what it changes, and whether it applies"),
    flag("--merge", "merge where it does not apply, and leave conflicts in the files"),
    flag("-f, --force", "do not ask for confirmation"),
    examples=["shed apply dev", "shed apply dev ~/src/project --check", "shed apply dev --also .envrc"],
)
def apply(args: Any, options: Options) -> int:
    """Take what has changed in a repository of a shed into one of this machine, as changes that are not committed.

    Left out, unless named by --also: links, submodules, and files that a program here runs by itself (`.envrc`,
    `.vscode/tasks.json` and the like).  Look at all else before you run it: `git diff`.
    """
    from shed.client.applying import Patch
    from shed.fsutil import storage_errors

    with tempfile.TemporaryDirectory(prefix="shed-apply-") as folder:
        path = Path(folder) / "patch"
        with storage_errors(path), path.open("wb") as file, waiting(options, f"asking {args.name} what has changed"):
            size = _write(args, options, file.write)
        patch = Patch(path, Path(args.target or "."))
        changes = patch.changes() if size else []
        if not changes:
            done(options, "apply", args.name, f"nothing has changed in {args.name}", files=[], left_out=[])
            return 0
        if not options.json:
            _list(changes, args.also)
        if not args.check and not confirm(f"Apply this to {patch.root}?", options, force=args.force, to="apply"):
            note("Cancelled.")
            return 0
        taken = patch.apply(changes, args.also, check=args.check, merge=args.merge)
    paths = {change.path for change in taken}
    left = [change for change in changes if change.path not in paths]
    did = "would change" if args.check else "changed"
    done(
        options,
        "apply",
        args.name,
        f"{did} {len(taken)} of {len(changes)} files in {patch.root}",
        files=[change.path for change in taken],
        left_out=[{"path": change.path, "why": change.danger} for change in left],
    )
    if left and not options.json:
        note(f"left out: {len(left)}; to take one, too: --also PATH")
    return 0


def _write(args: Any, options: Options, write: Callable[[bytes], object]) -> int:
    from shed.client.patches import write_patch

    return write_patch(
        client_of(args.name, options).address,
        args.name,
        write,
        folder=args.folder,
        base=args.base,
        user=args.user,
        on_start=lambda: note(f"Starting shed {args.name}..."),
    )


def _list(changes: list[Change], also: list[str]) -> None:
    from shed.text import visible

    rows = [
        [
            "binary" if change.added is None else f"+{change.added} -{change.deleted}",
            visible(change.path),
            change.danger and f"{'named' if change.path in also else 'left out'}: {change.danger}",
        ]
        for change in changes[:_SHOWN]
    ]
    say(table(["LINES", "FILE", "NOTE"], rows), end="")
    if len(changes) > _SHOWN:
        say(f"and {len(changes) - _SHOWN} more")
