"""Two folders, one here and one in a shed, that are kept alike."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

from shed.client.copying import CopyError
from shed.client.mirroring import MOST_ENTRIES, AbsentError, excluded, folders_of
from shed.client.sync_rules import Rule
from shed.client.twoway import state as states
from shed.client.twoway.carrying import Carrier, Outcome
from shed.client.twoway.guarding import REPOSITORIES, Guard
from shed.client.twoway.reconcile import Decider, Plan
from shed.client.twoway.remote import LONGEST_NAME, News, Remote, Result
from shed.client.twoway.tree import HERE, THERE, Node, Tree, identity_of
from shed.errors import UsageError
from shed.fsutil import locked, private_folder
from shed.replica import wire
from shed.replica.entry import FILE, ChangedError, Entry
from shed.replica.folder import Folder

_HASHED_THERE = 64 << 10
"""Bytes from which on it is asked for a digest before a file whose time alone may have changed is sent."""
_ROUNDS = 5
_FEW = 10
"""As many things may go at once without a question."""


class Pair:
    """The folder of `rule` here, and the one in the shed `name`, of which the state is kept below `states_folder`.

    What is named in `also` comes here although programs run it.  With `force` all that one side has may be gone.
    """

    def __init__(
        self,
        rule: Rule,
        name: str,
        *,
        server: str,
        states_folder: Path,
        also: Collection[str] = (),
        force: bool = False,
        warn: Callable[[str], None],
        on_bytes: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Raises `AbsentError`, `UsageError` for what is no folder."""
        self.rule = rule
        self.name = name
        self._server = server
        self._force = force
        self.warn = warn
        self.on_bytes = on_bytes
        self._folder = states_folder
        source = os.path.realpath(rule.source)
        if not os.path.lexists(source):
            raise AbsentError(f"there is no {rule.source}", hint="make it, or see the rule in sync.yaml")
        if not os.path.isdir(source):  # noqa: PTH112
            raise UsageError(f"{rule.source} is no folder", hint="files go one way: leave out --two-way")
        self.here = Folder(source, self._skips)
        self._guard = Guard(source, also)
        self.hasty = False
        """Whether an answer more from the shed counts."""
        self._state = states.State()
        self._written = b""
        """The digest of the state that was written last."""
        self._path = Path()
        self._marks = ["", ""]
        self._clean = False
        """Whether what a killed one has left goes away."""

    @property
    def aside(self) -> dict[str, str]:
        """Conflicts that last: where what the shed had is kept, and what it was called."""
        return self._state.aside

    @property
    def _places(self) -> tuple[str, str]:
        return str(self.rule.source), f"{self.name}:{self.rule.target}"

    @property
    def _tree(self) -> Tree:
        return self._state.tree

    def _skips(self, path: str) -> bool:
        return self._guard.is_repository(path) or excluded(path, self.rule.exclude)

    @contextlib.contextmanager
    def begin(self, remote: Remote, *, dry: bool = False) -> Iterator[None]:
        """Begin with a new program in the shed; in the block nobody else keeps these two folders.

        Raises `CopyError`, `ConflictError` when somebody does.
        """
        self._clean = not dry
        key = states.key_of(self._server, self.name, self.here.path, self.rule.target)
        patterns = [*REPOSITORIES, *self.rule.exclude]
        tokens, mark = remote.hello(self.rule.target, key, patterns, make=not dry)
        self._marks = [self.here.mark(make=not dry), mark]
        private_folder(self._folder)
        self._path = self._folder / key
        with locked(self._folder / f"{key}.lock", wait=False):
            kept = states.read(self._path)
            self._state = states.State()
            self._written = b""
            if kept is not None and kept.token in tokens and kept.marks == self._marks:
                self._state = kept
                self._written = _digest(kept)
            elif kept is not None:
                self._state.aside = kept.aside
                self.warn(
                    f"{self.name} does not know of the last time, as if its disk was an older one: nothing is deleted"
                    if kept.token not in tokens
                    else f"{self._places[kept.marks[HERE] == self._marks[HERE]]} is another folder than the last time: "
                    "nothing is deleted"
                )
            self._state.marks = self._marks
            yield

    def refresh(self, remote: Remote) -> None:
        """See what both sides have.  Raises `CopyError`."""
        remote.start_look()
        with self._reading():
            self._tree.put(HERE, "", self._mine(self.here.look("", clean=self._clean)))
        self._put_there("", self._theirs(remote.finish_look()))

    def refresh_here(self, path: str) -> None:
        """See what is here at `path` and below."""
        path = self._tree.known(HERE, path)
        with self._reading():
            self._tree.put(HERE, path, self._mine(self.here.look(path)))

    def refresh_there(self, remote: Remote, news: News) -> None:
        """See what the shed has at the paths of its news and below."""
        paths = [path for path in news.paths or () if not self.here.skips(path)]
        tops = list(dict.fromkeys(self._tree.known(THERE, path) for path in paths))
        if news.entries is not None and tops == paths:
            found = list(self._theirs(news.entries))
        else:
            paths = tops
            found = list(self._theirs(remote.look(paths))) if paths else []
        below: dict[str, list[tuple[str, Entry]]] = {path: [] for path in paths}
        for each in found:
            for path in (*folders_of(each[0]), each[0]):
                if path in below:
                    below[path].append(each)
        for path, entries in below.items():
            self._put_there(path, entries)

    def cycle(self, remote: Remote, paths: Iterable[str] = ("",), *, dry: bool = False) -> tuple[Plan, Outcome]:
        """Make both sides alike at `paths`; with `dry` only say what is to be done.  Raises `CopyError`."""
        tops = _outermost(self._tree.top(path) for path in paths)
        carrier = Carrier(self._tree, self.here, remote, self.on_bytes)
        for _ in range(_ROUNDS):
            self._not_emptied()
            self._identify(remote, tops)
            plan = self._decide(tops)
            if dry or not plan.aside:
                break
            moved = len(carrier.outcome.aside)
            for path in plan.aside:
                carrier.move_aside(path, self._aside_name(path))
            if len(carrier.outcome.aside) == moved:
                break
            tops = _outermost(top.rpartition("/")[0] for top in tops)
        outcome = carrier.outcome
        if not dry:
            self._state.aside |= outcome.aside
            carrier.carry_out(plan)
            for top in tops:
                self._tree.prune(top)
            self._state.aside = {path: name for path, name in self.aside.items() if self._is_there(path)}
        outcome.left = plan.left
        return plan, outcome

    def save(self, remote: Remote) -> None:
        """Keep what both have in common, once it is on both disks.  Raises `CopyError`, `StorageError`."""
        data = states.encoded(self._state)
        if hashlib.sha256(data).digest() == self._written:
            return
        token = secrets.token_hex(16)
        said: list[Result | Exception] = []
        remote.request(wire.SETTLE, token.encode(), said.append)
        with self._reading():
            self.here.settle()
        remote.finish()
        if not isinstance(said[0], Result):
            raise CopyError(f"{self.name} cannot keep what both sides have in common: {said[0]}")
        states.write(self._path, token, data)
        self._written = hashlib.sha256(data).digest()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CopyError(f"cannot read {self.rule.source}: {error.filename or ''} {error.strerror}") from None

    def _mine(self, found: Iterable[tuple[str, Entry]]) -> Iterator[tuple[str, Entry]]:
        for count, (path, entry) in enumerate(found):
            if count > MOST_ENTRIES:
                raise UsageError(f"{self.rule.source} has more than {MOST_ENTRIES:,} files", hint="exclude some")
            yield path, entry

    def _theirs(self, found: Iterable[tuple[str, Entry]]) -> Iterator[tuple[str, Entry]]:
        """Yield what is not left out, whatever the shed says."""
        kept = {""}
        for path, entry in found:
            known = path.rpartition("/")[0] in kept
            if not (self.here.leaves(path) if known else self.here.skips(path)):
                kept.add(path)
                yield path, entry

    def _put_there(self, path: str, entries: Iterable[tuple[str, Entry]]) -> None:
        try:
            self._tree.put(THERE, path, entries)
        except ValueError:
            raise CopyError("the shed does not say what it has there") from None

    def _decide(self, tops: list[str]) -> Plan:
        """Return what is to be done; where git runs hooks is asked anew when something is to come here."""
        for ask in (True, False):
            decider = Decider(self._tree, partial(self._guard.why, self._tree))
            for top in tops:
                decider.decide(top)
            plan = decider.plan
            if not (ask and (plan.aside or plan.carry[HERE] or plan.remove[HERE]) and self._guard.ask_hooks()):
                break
        return plan

    def _not_emptied(self) -> None:
        """Raise `CopyError` when one side has nothing any more of what both had: an unmounted disk looks so, too."""
        if self._force:
            return
        root = self._tree.root
        for side, what in enumerate(self._places):
            # Only when nothing of the outermost is there can all be gone: to count the rest takes longer.
            if any(child.base is not None and child.now[side] is not None for child in root.children.values()):
                continue
            if sum(1 for _, node in self._tree.all() if node.base is not None) > _FEW:
                raise CopyError(f"all that was in {what} is gone", hint="if that is meant, carry it over: --force")

    def _identify(self, remote: Remote, tops: list[str]) -> None:
        """Find out what the content of files is, as far as a decision needs it."""
        for top in tops:
            for path, node in self._tree.all(top):
                node.sure = [None, None]
                for side in (HERE, THERE):
                    self._identify_known(node, side)
                here = node.now[HERE]
                if here is not None and node.ids[HERE] is None:
                    self._identify_here(path, node, here)
        for top in tops:
            for path, node in self._tree.all(top):
                there = node.now[THERE]
                if there is not None and node.ids[THERE] is None:
                    node.ids[THERE] = identity_of(there, b"there")
                    if _needs_digest(node, there, hasty=self.hasty):
                        self._ask_digest(remote, path, node, there)
        remote.finish()
        self.here.leave()

    @staticmethod
    def _identify_known(node: Node, side: int) -> None:
        entry, base = node.now[side], node.base
        if entry is None or entry.kind != FILE:
            node.ids[side] = identity_of(entry, b"") if entry is not None else None
        elif base is not None and base.kind == FILE and base.marks[side] == entry.mark:
            node.ids[side], node.sure[side] = identity_of(entry, base.content), entry.mark
        else:
            node.ids[side] = None

    def _identify_here(self, path: str, node: Node, entry: Entry) -> None:
        node.ids[HERE] = identity_of(entry, b"here")
        base, there = node.base, node.now[THERE]
        if not ((base is not None and base.size == entry.size) or (there is not None and there.size == entry.size)):
            return  # nothing has the same content
        with contextlib.suppress(OSError, ChangedError):  # carrying it tells
            reading = self.here.read(path)
            if reading.entry.same(entry):
                total = hashlib.sha256()
                for piece in reading.chunks():
                    total.update(piece)
                node.ids[HERE] = identity_of(entry, total.digest())
                node.sure[HERE] = entry.mark if reading.settled else None
            reading.close()

    @staticmethod
    def _ask_digest(remote: Remote, path: str, node: Node, entry: Entry) -> None:
        def then(result: Result | Exception) -> None:
            if isinstance(result, Result) and entry.same(result.entry) and len(result.digest) == 32:
                node.ids[THERE] = identity_of(entry, result.digest)
                node.sure[THERE] = entry.mark if result.settled else None

        remote.request(wire.DIGESTS, path.encode(errors="surrogateescape"), then)

    def _aside_name(self, path: str) -> str:
        """Return a name beside `path` that nothing has."""
        above, _, name = path.rpartition("/")
        folder = self._tree.find(above)
        assert folder is not None
        number = 1
        while True:
            end = f".conflict-{self.name}" + (f"-{number}" if number > 1 else "")
            cut = os.fsdecode(os.fsencode(name)[: LONGEST_NAME - len(end)])
            found = folder.children.get(cut + end)
            if found is None or found.now == [None, None]:
                return cut + end
            number += 1

    def _is_there(self, path: str) -> bool:
        node = self._tree.find(path)
        return node is not None and node.now != [None, None]


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return `paths` without those that are in others of them."""
    found = set(paths)
    return [""] if "" in found else sorted(path for path in found if not any(map(found.__contains__, folders_of(path))))


def _needs_digest(node: Node, there: Entry, *, hasty: bool) -> bool:
    """Tell whether to know the content of a file of the shed would make a difference.

    Whoever is in haste gets a small file that only seems to have changed.
    """
    base, here = node.base, node.now[HERE]
    moved = node.ids[HERE] != (base.identity if base is not None else None)
    was_so = base is not None and base.kind == FILE and base.size == there.size
    if moved and here is not None and here.kind == FILE and here.size == there.size:
        return True
    return was_so and (moved or not hasty or there.size > _HASHED_THERE)


def _digest(state: states.State) -> bytes:
    return hashlib.sha256(states.encoded(state)).digest()
