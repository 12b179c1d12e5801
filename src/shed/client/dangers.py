"""What of a shed does not come to this machine by itself: names that programs run, and links that lead elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from shed import selfrun
from shed.errors import ShedError
from shed.run import run

Hooks = list[tuple[str, ...]]
"""Folders from which git runs hooks, as the parts of their paths; none of them for the folder itself."""
UNPRINTABLE = "its name has characters that cannot be shown"


def hooks_of(folder: Path, repository: str = "") -> Hooks:
    """Return from where below `folder` git runs hooks of the repository that `repository` below it is in, if so."""
    try:
        place = folder / repository
        top = run(["git", "-C", place, "rev-parse", "--show-toplevel"], check=False)
        found = run(["git", "-C", place, "config", "--type=path", "core.hooksPath"], check=False)
    except ShedError:  # where there is no git, it runs nothing
        return []
    if top.returncode or found.returncode:
        return []
    hooks = os.path.join(*(each.stdout.decode(errors="surrogateescape").removesuffix("\n") for each in (top, found)))  # noqa: PTH118
    relative = os.path.relpath(os.path.realpath(hooks), os.path.realpath(folder))
    parts = [] if relative == "." else relative.split("/")
    return [] if parts[:1] == [".."] else [tuple(map(_fold, parts))]


def danger(path: str, hooks: Hooks) -> str:
    """Return why what is at `path` is only taken from a shed when it was named, or nothing."""
    if not _known_bytes(path).isprintable():
        return UNPRINTABLE
    *folders, name = parts = [_fold(part) for part in path.split("/")]
    if any(tuple(parts[: len(hook)]) == hook for hook in hooks):
        return "git runs it: core.hooksPath leads here"
    if name == "head":
        return "git may take its folder for a repository, and run what is set there"
    return selfrun.why(folders[-1] if folders else "", name) or ""


def leads_out(path: str, target: str, hooks: Hooks) -> str:
    """Return why a link at `path` to `target` does not come from a shed, or nothing.

    It may lead to what is in the folder, and could come from there itself.
    """
    *folders, name = path.split("/")
    plain = tuple(map(_fold, (*folders, name)))
    if selfrun.holds_such(plain[-1]) or any(hook[: len(plain)] == plain for hook in hooks):
        return "a link where programs here look for what they run"
    ups, parts = 0, [part for part in target.split("/") if part not in ("", ".")]
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    if target.startswith("/") or ups > len(folders) or ".." in parts[ups:]:
        return f"a link that leads out of the folder: {target}"
    goal = [*folders[: len(folders) - ups], *parts[ups:]]
    if any(map(is_git, goal)) or (goal and danger("/".join(goal), hooks)):
        return f"a link to what programs here run: {target}"
    return ""


def is_hidden(name: str) -> bool:
    """Tell whether some file system may take a name for one that begins with a dot."""
    return name.startswith(".") or _fold(name).startswith(".")


def is_git(name: str) -> bool:
    """Tell whether some file system may take a name for `.git`."""
    if name.isascii() and name[:1] not in {".", "g", "G"}:
        return False
    return selfrun.is_git(_fold(name).encode())


def _fold(name: str) -> str:
    return selfrun.fold(name.encode(errors="surrogateescape")).decode(errors="ignore")


def _known_bytes(text: str) -> str:
    """Return `text` without bytes that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="ignore")
