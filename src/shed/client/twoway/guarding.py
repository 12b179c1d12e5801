"""What does not come from a shed into a folder of this machine: what programs run, and links that lead out of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from shed.client.dangers import Hooks, danger, goal_of, hooks_of, is_repository, leads_out
from shed.client.mirroring import folders_of
from shed.client.twoway.tree import HERE, Tree
from shed.errors import UsageError
from shed.replica.entry import FILE, LINK, Entry
from shed.sizes import format_size

MOST_FILE = 2 << 30
"""Bytes of a file that comes from a shed."""
REPOSITORIES = ("[.][gG][iI][tT]", "[.][hH][gG]", "[.][jJ][jJ]", "[.][sS][vV][nN]", "[.][sS][lL]", "[.][bB][zZ][rR]")
"""Patterns of most that is carried neither way: the shed need not tell of it."""
_BARE = ("HEAD", "objects", "refs")
_MOST_LINKS = 10
"""Links that lead to each other."""


class Guard:
    """Guards the folder `source`, a real path; what is named in `also` comes although programs run it."""

    def __init__(self, source: str, also: Collection[str]) -> None:
        """Raises `UsageError` for a folder that is full of what programs run."""
        home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111
        if f"{home}/".startswith(f"{source.rstrip('/')}/") or source in {f"{home}/.config", f"{home}/.local"}:
            raise UsageError(f"{source} is not kept alike: programs here run what is in it", hint="name a folder in it")
        if any(map(is_repository, source.split("/"))) or _is_bare(source):
            raise UsageError(f"{source} is a repository's own: it is not kept alike", hint="push and pull")
        self._source = source
        self._also = set(also)
        self._hooks: dict[str, Hooks] = {}
        """Of each folder with a repository, and of all."""

    def is_repository(self, path: str) -> bool:
        """Tell whether what is at `path` is a repository's own, which is carried neither way."""
        folder, _, name = path.rpartition("/")
        if not is_repository(name):
            return False
        if folder not in self._hooks and os.path.lexists(f"{self._source}/{path}"):
            self._hooks[folder] = hooks_of(Path(self._source), folder)
        return True

    def ask_hooks(self) -> bool:
        """Ask again from where git runs hooks, which somebody may have set meanwhile; return whether that is new."""
        before = self._hooks
        self._hooks = {folder: hooks_of(Path(self._source), folder) for folder in ("", *filter(None, before))}
        return self._hooks != before

    def why(self, tree: Tree, path: str, entry: Entry | None) -> str:
        """Return why what the shed has at `path`, or that it has nothing there, does not come here, or nothing."""
        hooks = [hook for each in self._hooks.values() for hook in each]
        named = path in self._also
        if not named and (why := danger(path, hooks, self._source)):
            return why
        if not named and any(_has_repository(tree, folder) for folder in folders_of(path)):
            return "git takes a folder that it is in for a repository, and runs what is set there"
        if entry is not None and entry.kind == LINK:
            return self._why_link(tree, path, entry.link, hooks)
        if entry is not None and entry.kind == FILE and entry.size > MOST_FILE:
            return f"it is larger than {format_size(MOST_FILE)}"
        return ""

    def _why_link(self, tree: Tree, path: str, target: str, hooks: Hooks) -> str:
        """Return why a link does not come: what it leads to through other links counts, too."""
        ahead = [(path, target)]
        for _ in range(_MOST_LINKS):
            if not ahead:
                return ""
            place, leads = ahead.pop()
            if why := leads_out(place, leads, hooks, self._source):
                return why if place == path else f"a link to one that does not come: {target}"
            goal = goal_of(place, leads)
            if goal and any(_links(tree, folder) for folder in folders_of(goal)):
                return f"a link through another: {target}"
            ahead += [(goal, each) for each in _links(tree, goal)] if goal else []
        return f"a link through many others: {target}"


def _links(tree: Tree, path: str) -> list[str]:
    """Return where links at `path` lead, on either side."""
    node = tree.find(path)
    return [entry.link for entry in node.now if entry is not None and entry.kind == LINK] if node is not None else []


def _has_repository(tree: Tree, path: str) -> bool:
    """Tell whether this machine has a repository at `path` that is in no folder of its own."""
    node = tree.find(path)
    children = node.children if node is not None else {}
    return all(name in children and children[name].now[HERE] is not None for name in _BARE)


def _is_bare(folder: str) -> bool:
    return all(os.path.lexists(f"{folder}/{name}") for name in _BARE)
