"""Bringing files and folders of this machine into a shed, one way: what differs is sent, and nothing comes back.

The shed tells what it has; that is compared here, and what is sent goes as one stream, which `shed.guest.archive`
unpacks there.  What a guest says decides what is sent of that which the user has named, and no more.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from shed.client.address import Address
from shed.client.copying import CopyError
from shed.client.execution import Execution
from shed.client.sync_rules import Rule
from shed.errors import NotFoundError, UsageError
from shed.execstream import helper, script
from shed.guest.archive import ArchiveError, Packer
from shed.untrusted import told

MOST_ENTRIES = 500_000
"""Names below one folder, here or in a shed."""
_MOST_LISTED = 256 << 20
_MOST_SAID = 4096
_LIST = r"""
import os, stat, sys
root = os.path.expanduser(sys.argv[1])
root = os.path.realpath(root if os.path.isabs(root) else os.path.join(os.getcwd(), root))
out = open(1, "wb")
out.write(os.fsencode(root) + b"\0")
def tell(path, name):
    status = os.lstat(path)
    kind = status.st_mode & 0o170000
    link = os.fsencode(os.readlink(path)) if kind == 0o120000 else b""
    out.write(b"%o %d %d " % (status.st_mode, status.st_size, status.st_mtime_ns))
    out.write(os.fsencode(name) + b"\0" + link + b"\0")
def walk(folder, prefix):
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        name = prefix + entry.name
        tell(entry.path, name)
        if entry.is_dir(follow_symlinks=False):
            walk(entry.path, name + "/")
if sys.argv[2]:
    if os.path.lexists(os.path.join(root, sys.argv[2])):
        tell(os.path.join(root, sys.argv[2]), sys.argv[2])
elif os.path.isdir(root):
    walk(root, "")
out.flush()
"""
_MAKE = "import os, sys; os.makedirs(sys.argv[1], exist_ok=True)"
_REMOVE = r"""
import os, sys
os.chdir(sys.argv[1])
for name in open(0, "rb").read().split(b"\0")[:-1]:
    try:
        os.rmdir(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        print(f"{os.fsdecode(name)}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link, as far as it is compared."""

    mode: int
    size: int
    mtime_ns: int
    link: str = ""

    def same(self, other: Entry) -> bool:
        """Tell whether nothing is to be sent for `other` to be this one."""
        if not _alike(self, other):
            return False
        if stat.S_ISLNK(self.mode):
            return self.link == other.link
        if stat.S_IMODE(self.mode) & 0o777 != stat.S_IMODE(other.mode) & 0o777:
            return False
        return stat.S_ISDIR(self.mode) or (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


@dataclass
class Plan:
    """What there is to do for one rule."""

    rule: Rule
    root: str
    """The folder in the shed."""
    single: str = ""
    """What the file of the rule is called there, when it names no folder."""
    send: list[str] = field(default_factory=list)
    """Names below `root`, folders before what is in them."""
    bytes: int = 0
    """Of the files among them."""
    delete: list[str] = field(default_factory=list)
    """Names below `root`, folders behind what was in them."""
    newer: list[str] = field(default_factory=list)
    """What was changed later in the shed than here, and is left as it is."""
    skipped: list[str] = field(default_factory=list)
    """What is neither a file nor a folder nor a link."""


class Run(Protocol):
    """Runs a command in a shed."""

    def __call__(self, command: list[str], stdin: Callable[[BinaryIO], None] | None = None) -> bytes:
        """Return what it prints; `stdin` writes its input.  Raises `CopyError`."""
        ...


class Mirror:
    """Brings what `Rule`s name into the shed in which `run` runs commands."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def plan(self, rule: Rule, *, force: bool) -> Plan:
        """Compare both sides; with `force`, what is newer in the shed is sent as well.

        Raises `NotFoundError` when the rule's file or folder is not here, `CopyError`.
        """
        here = _here(rule)
        single = "" in here
        target, name = os.path.split(rule.target) if single else (rule.target, "")
        if single:
            name = name or rule.source.name
            here = {name: here[""]}
        root, there = self._there(target or ".", name)
        there = {path: entry for path, entry in there.items() if not _excluded(path, rule.exclude)}
        plan = Plan(rule, root, name)
        for path, entry in here.items():
            kind, other = stat.S_IFMT(entry.mode), there.get(path)
            if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
                plan.skipped.append(path)
            elif other is None or not entry.same(other):
                newer = other is not None and other.mtime_ns > entry.mtime_ns and not stat.S_ISDIR(other.mode)
                if newer and not force:
                    plan.newer.append(path)
                    continue
                plan.send.append(path)
                plan.bytes += entry.size if stat.S_ISREG(entry.mode) else 0
        gone = {path for path in there if path not in here} if rule.delete and not single else set()
        of_another_kind = {path for path in plan.send if path in there and not _alike(here[path], there[path])}
        below = {path for path in there if any(path.startswith(f"{each}/") for each in of_another_kind)}
        plan.delete = sorted(gone | of_another_kind | below, reverse=True)
        return plan

    def carry_out(self, plan: Plan, warn: Callable[[str], None]) -> None:
        """Do what `plan` says.  Raises `CopyError`."""
        if plan.delete:
            names = b"".join(os.fsencode(path) + b"\0" for path in plan.delete)
            self._run(script(_REMOVE, plan.root), lambda out: _write(out, names))
        if plan.send:
            self._run(script(_MAKE, plan.root))
            target = [f"{plan.root}/{plan.single}", plan.single] if plan.single else [plan.root, "."]
            self._run(helper("archive", "unpack", *target), lambda out: _pack(plan, out, warn))

    def _there(self, target: str, only: str) -> tuple[str, dict[str, Entry]]:
        """Return the folder `target` of the shed as it is called there, and what is below, or `only` that."""
        words = self._run(script(_LIST, target, only)).split(b"\0")
        found = {}
        try:
            root = os.fsdecode(words[0])
            for head, link in zip(words[1:-1:2], words[2:-1:2], strict=True):
                mode, size, mtime, name = head.split(b" ", 3)
                found[os.fsdecode(name)] = Entry(int(mode, 8), int(size), int(mtime), os.fsdecode(link))
        except ValueError:
            raise CopyError("the shed does not say what it has there") from None
        return root, found


def running(address: Address, name: str, *, user: str | None, on_start: Callable[[], None]) -> Run:
    """Return what runs commands in the shed `name` as `user`, by default the shed's own."""

    def run(command: list[str], stdin: Callable[[BinaryIO], None] | None = None) -> bytes:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            with Execution(address, name, command, user=user, on_start=on_start) as execution:
                if stdin is None:
                    ended = execution.run(stdin=None, stdout=out.fileno(), stderr=said.fileno())
                else:
                    with _fed(stdin) as source:
                        ended = execution.run(stdin=source, stdout=out.fileno(), stderr=said.fileno())
            said.seek(0)
            lines = said.read(_MOST_SAID).decode(errors="replace").splitlines()
            if ended.code or ended.error:
                why = ended.error or (lines[-1] if lines else f"exit code {ended.code}")
                raise CopyError(f"shed {name!r}: {told(why)}", hint="see its folder, and its user's rights there")
            out.seek(0)
            data = out.read(_MOST_LISTED + 1)
        if len(data) > _MOST_LISTED:
            raise CopyError(f"shed {name!r} has too many files there")
        return data

    return run


def _here(rule: Rule) -> dict[str, Entry]:
    """Return what is below the rule's folder, or the file that it names as ``""``.  Raises `NotFoundError`."""
    try:
        status = rule.source.stat()
        if not stat.S_ISDIR(status.st_mode):
            return {"": Entry(status.st_mode, status.st_size, status.st_mtime_ns)}
        found: dict[str, Entry] = {}
        ahead = [""]
        while ahead:
            prefix = ahead.pop()
            with os.scandir(rule.source / prefix) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    name = prefix + entry.name
                    if _excluded(name, rule.exclude):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    link = str(Path(entry.path).readlink()) if stat.S_ISLNK(status.st_mode) else ""
                    found[name] = Entry(status.st_mode, status.st_size, status.st_mtime_ns, link)
                    if stat.S_ISDIR(status.st_mode):
                        ahead.append(f"{name}/")
            if len(found) > MOST_ENTRIES:
                raise UsageError(f"{rule.source} has more than {MOST_ENTRIES:,} files", hint="exclude some")
    except OSError as error:
        raise NotFoundError(
            f"cannot read {error.filename or rule.source}: {error.strerror}", hint="see the rule in sync.yaml"
        ) from None
    return found


def _excluded(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a pattern means `name`, or a folder that it is in."""
    parts = name.split("/")
    ends = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(
        any(fnmatch.fnmatchcase(each, pattern) for each in (ends if "/" in pattern else parts)) for pattern in patterns
    )


def _alike(one: Entry, other: Entry) -> bool:
    return stat.S_IFMT(one.mode) == stat.S_IFMT(other.mode)


def _pack(plan: Plan, out: BinaryIO, warn: Callable[[str], None]) -> None:
    """Write what is to be sent, with the folders that it is in."""
    source = os.path.realpath(plan.rule.source)
    packer = Packer(out, warn)
    packer.add(source, plan.single or ".")
    if not plan.single:
        for name in sorted(_with_folders(plan.send)):
            packer.add(f"{source}/{name}", f"./{name}")
    packer.finish()


def _with_folders(names: list[str]) -> set[str]:
    found = set(names)
    for name in names:
        parts = name.split("/")
        found.update("/".join(parts[:count]) for count in range(1, len(parts)))
    return found


def _write(out: BinaryIO, data: bytes) -> None:
    out.write(data)


@contextlib.contextmanager
def _fed(write: Callable[[BinaryIO], None]) -> Iterator[int]:
    """Yield the end of a pipe that has what `write` writes.  Raises what that does, at the end of the block."""
    problems: list[BaseException] = []
    source, sink = os.pipe()

    def feed() -> None:
        try:
            with open(sink, "wb") as out:
                write(out)
        except BrokenPipeError:
            pass  # nobody takes it: who has left says why
        except BaseException as error:  # noqa: BLE001  raised below
            problems.append(error)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield source
    finally:
        os.close(source)
        feeder.join()
    for problem in problems:
        raise CopyError(str(problem)) from None if isinstance(problem, ArchiveError) else problem
