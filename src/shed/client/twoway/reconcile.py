"""What is to be done for two folders to be alike: a three-way decision for each path.  Pure.

==============================================  ===============================================================
since they were last alike                      then
==============================================  ===============================================================
only one side has changed                       that is carried to the other
both in the same way                            nothing
deleted on one side, changed on the other       what was changed is carried over
both, differently                               a conflict: what the shed has is to be kept aside first
==============================================  ===============================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shed.client.twoway.tree import HERE, THERE, Node, Tree
from shed.replica.entry import FOLDER, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Refuse = Callable[[str, Entry | None], str]
    """Why what the shed has at a path, or that it has nothing there, does not come here; empty when it does."""

_ODD = "it is neither a file nor a folder nor a link, or cannot be read"


@dataclass
class Plan:
    """What to do."""

    aside: list[str] = field(default_factory=list)
    """Conflicts.  When there are some, they are to be settled first, and all of it decided again."""
    remove: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """For each side, what is in folders before these."""
    carry: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """For each side, what is to come to it, folders before what is in them; behind what is removed."""
    left: dict[str, str] = field(default_factory=dict)
    """What is not carried, and why."""

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.aside or any(self.remove) or any(self.carry))


class Decider:
    """Makes a `Plan`."""

    def __init__(self, tree: Tree, refuse: Refuse) -> None:
        self._tree = tree
        self._refuse = refuse
        self.plan = Plan()

    def decide(self, path: str) -> None:
        """Decide about `path` and all below it."""
        node = self._tree.find(path)
        if node is None:
            return
        if path:
            self._decide(path, node)
        else:
            self._decide_below("", node)

    def _decide_below(self, path: str, node: Node) -> None:
        for name, child in list(node.children.items()):
            self._decide(f"{path}/{name}" if path else name, child)

    def _decide(self, path: str, node: Node) -> None:
        here, there = node.ids
        if node.odd:
            self.plan.left[path] = _ODD
            return
        if here == there:
            node.agree()
            self._decide_below(path, node)
            return
        if why := self._refuse(path, node.now[THERE]):
            self._one_way(path, node, why)
            return
        mine, theirs = node.touched(HERE), node.touched(THERE)
        if mine and theirs:
            self.plan.aside.append(path)
        elif mine or theirs:
            source = HERE if mine else THERE
            if node.ids[1 - source] is None and _is_folder(node, source) and _was_folder(node):
                self._keep_changed(path, node, source)
            else:
                self._copy(path, node, source)
        else:
            self._copy(path, node, HERE if here is None else THERE)

    def _one_way(self, path: str, node: Node, why: str) -> None:
        """Carry what this machine has, as long as the shed has not changed it."""
        was = node.base.identity if node.base is not None else None
        if node.ids[THERE] == was and not node.touched(THERE):
            self._copy(path, node, HERE)
        else:
            self.plan.left[path] = why

    def _keep_changed(self, path: str, node: Node, source: int) -> None:
        """The other side has deleted the folder: what `source` has changed in it stays, and all else goes."""
        carried = self.plan.carry[1 - source]
        before = len(carried)
        self._decide_below(path, node)
        if len(carried) > before:
            carried.insert(before, path)
        else:
            self.plan.remove[source].append(path)

    def _copy(self, path: str, node: Node, source: int) -> None:
        """Make the other side what `source` is, here and below."""
        target = 1 - source
        if node.odd:
            self.plan.left[path] = _ODD
            return
        if target == HERE and (why := self._refuse(path, node.now[THERE])):
            if node.ids[HERE] != node.ids[THERE]:
                self.plan.left[path] = why
            return
        if node.ids[source] == node.ids[target]:
            node.agree()
            self._copy_below(path, node, source)
            return
        had, new = node.now[target], node.now[source]
        folder = new is not None and new.kind == FOLDER
        if not folder:
            self._copy_below(path, node, source)
        if had is not None and (new is None or folder or had.kind == FOLDER):
            self.plan.remove[target].append(path)
        if new is not None:
            self.plan.carry[target].append(path)
        if folder:
            self._copy_below(path, node, source)

    def _copy_below(self, path: str, node: Node, source: int) -> None:
        for name, child in list(node.children.items()):
            self._copy(f"{path}/{name}", child, source)


def _is_folder(node: Node, side: int) -> bool:
    entry = node.now[side]
    return entry is not None and entry.kind == FOLDER


def _was_folder(node: Node) -> bool:
    return node.base is not None and node.base.kind == FOLDER
