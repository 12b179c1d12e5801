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
    """Return from where below `folder` git runs hooks of the repository that `repository` below it is in.

    An absolute core.hooksPath, which is there for all repositories, counts where there is none, too.
    """
    try:
        place = folder / repository
        found = run(["git", "-C", place, "config", "--type=path", "core.hooksPath"], check=False)
        if found.returncode:
            return []
        hooks = found.stdout.decode(errors="surrogateescape").removesuffix("\n")
        if not hooks.startswith("/"):
            top = run(["git", "-C", place, "rev-parse", "--show-toplevel"], check=False)
            if top.returncode:
                return []
            hooks = f"{top.stdout.decode(errors='surrogateescape').removesuffix(chr(10))}/{hooks}"
    except ShedError:  # where there is no git, it runs nothing
        return []
    relative = os.path.relpath(os.path.realpath(hooks), os.path.realpath(folder))
    parts = [] if relative == "." else relative.split("/")
    return [] if parts[:1] == [".."] else [tuple(map(_fold, parts))]


def danger(path: str, hooks: Hooks, above: str = "") -> str:
    """Return why what is at `path` is only taken from a shed when it was named, or nothing.

    `above` is the path of the folder that it is below, as far as that tells what programs take it for.  What is git's
    own is for the caller to refuse, by `is_repository`.
    """
    if not _known_bytes(path).isprintable():
        return UNPRINTABLE
    parts = [_fold(part) for part in path.split("/")]
    if any(tuple(parts[: len(hook)]) == hook for hook in hooks):
        return "git runs it: core.hooksPath leads here"
    *folders, name = [*(_fold(part) for part in above.split("/")), *parts]
    if any(selfrun.is_repository(part.encode()) and not selfrun.is_git(part.encode()) for part in (*folders, name)):
        return "a program like git keeps it, and runs what is set there"
    if name == "head":
        return "git may take its folder for a repository, and run what is set there"
    return selfrun.why(folders[-1], name) or selfrun.why_below(folders) or ""


def leads_out(path: str, target: str, hooks: Hooks, above: str = "") -> str:
    """Return why a link at `path` to `target` does not come from a shed, or nothing.

    It may lead to what is in the folder, and could come from there itself.
    """
    plain = tuple(map(_fold, path.split("/")))
    if selfrun.holds_such(plain[-1]) or any(hook[: len(plain)] == plain for hook in hooks):
        return "a link where programs here look for what they run"
    goal = goal_of(path, target)
    if goal is None:
        return f"a link that leads out of the folder: {target}"
    if goal and (any(map(is_repository, goal.split("/"))) or danger(goal, hooks, above)):
        return f"a link to what programs here run: {target}"
    return ""


def goal_of(path: str, target: str) -> str | None:
    """Return the path to which a link at `path` leads if no part of that is a link; None when it is not below."""
    folders = path.split("/")[:-1]
    ups, parts = 0, [part for part in target.split("/") if part not in ("", ".")]
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    if target.startswith("/") or ups > len(folders) or ".." in parts[ups:]:
        return None
    return "/".join([*folders[: len(folders) - ups], *parts[ups:]])


def is_hidden(name: str) -> bool:
    """Tell whether some file system may take a name for one that begins with a dot."""
    return name.startswith(".") or _fold(name).startswith(".")


def is_git(name: str) -> bool:
    """Tell whether some file system may take a name for `.git`."""
    return is_repository(name) and selfrun.is_git(_fold(name).encode())


def is_repository(name: str) -> bool:
    """Tell whether some file system may take a name for `.git`, `.hg` or another of that kind."""
    if name.isascii() and name[:1] not in {".", "_"} and "~" not in name:
        return False
    return selfrun.is_repository(_fold(name).encode())


def _fold(name: str) -> str:
    return selfrun.fold(name.encode(errors="surrogateescape")).decode(errors="ignore")


def _known_bytes(text: str) -> str:
    """Return `text` without bytes that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="ignore")
