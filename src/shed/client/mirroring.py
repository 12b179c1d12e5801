"""Bringing files and folders of this machine into a shed, one way: what differs is sent, and nothing comes back.

The shed tells what it has; that is compared here, and what is sent goes as one stream, which `shed.guest.archive`
unpacks there.  What a guest says decides what is sent of that which the user has named, and no more.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from shed.client.address import Address
from shed.client.asking import ask
from shed.client.copying import CopyError, said_by_helper
from shed.client.sync_rules import Rule
from shed.errors import NotFoundError, UsageError
from shed.execstream import helper, script
from shed.guest.archive import ArchiveError, Packer
from shed.untrusted import told

MOST_ENTRIES = 500_000
"""Names below one folder, here or in a shed."""
_MOST_LISTED = 256 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LIST = r"""
import os, stat, sys
root = os.path.expanduser(sys.argv[1])
root = os.path.realpath(root if os.path.isabs(root) else os.path.join(os.getcwd(), root))
out = open(1, "wb")
out.write(os.fsencode(root) + b"\0")
def tell(path, name):
    try:
        status = os.lstat(path)
        link = os.fsencode(os.readlink(path)) if status.st_mode & 0o170000 == 0o120000 else b""
    except FileNotFoundError:  # it has just gone
        return
    out.write(b"%o %d %d " % (status.st_mode, status.st_size, status.st_mtime_ns))
    out.write(os.fsencode(name) + b"\0" + link + b"\0")
def walk(folder, prefix):
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        name = prefix + entry.name
        tell(entry.path, name)
        if entry.is_dir(follow_symlinks=False):
            try:
                walk(entry.path, name + "/")
            except FileNotFoundError:
                pass
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


class AbsentError(NotFoundError):
    """What a rule brings is not here."""


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

        Raises `AbsentError` when the rule's file or folder is not here, `CopyError`.
        """
        here = present(rule)
        single = "" in here
        target, name = os.path.split(rule.target) if single else (rule.target, "")
        if single:
            name = name or rule.source.name
            here = {name: here[""]}
        root, all_of_it = self._there(target or ".", name)
        if name in {"~", ".", ".."} or (name in all_of_it and stat.S_ISDIR(all_of_it[name].mode)):
            raise UsageError(
                f"{rule.source} is a file, and {rule.target} a folder", hint=f"write {rule.target.rstrip('/')}/"
            )
        there = {path: entry for path, entry in all_of_it.items() if not excluded(path, rule.exclude)}
        plan = Plan(rule, root, name)
        replaced: set[str] = set()
        for path, entry in here.items():
            if not _within(path, plan.newer):
                self._compare(plan, path, entry, there.get(path), replaced, force=force)
        gone = {path for path in there if path not in here} if rule.delete and not single else set()
        gone |= replaced | {path for path in there if _within(path, replaced)}
        gone -= {folder for path in all_of_it.keys() - there.keys() for folder in folders_of(path)}
        plan.delete = sorted(gone, reverse=True)
        return plan

    @staticmethod
    def _compare(plan: Plan, path: str, entry: Entry, other: Entry | None, replaced: set[str], *, force: bool) -> None:
        """Note in `plan` what is to be done about `path`, and in `replaced` when what is there is of another kind."""
        if stat.S_IFMT(entry.mode) not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
            plan.skipped.append(path)
            return
        if other is not None and entry.same(other):
            return
        if other is not None and not force:
            folder = stat.S_ISDIR(other.mode)
            if (folder and not _alike(entry, other) and not plan.rule.delete) or (
                not folder and other.mtime_ns > entry.mtime_ns
            ):
                plan.newer.append(path)
                return
        if other is not None and not _alike(entry, other):
            replaced.add(path)
        plan.send.append(path)
        plan.bytes += entry.size if stat.S_ISREG(entry.mode) else 0

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
        said = self._run(script(_LIST, target, only))
        if said.count(b"\0") > 2 * MOST_ENTRIES + 1:
            raise CopyError(f"the shed has more than {MOST_ENTRIES:,} files there")
        words = said.split(b"\0")
        found: dict[str, Entry] = {}
        try:
            root = os.fsdecode(words[0])
            if not root.startswith("/") or words[-1]:
                raise ValueError
            for head, link in zip(words[1:-1:2], words[2:-1:2], strict=True):
                mode, size, mtime, name = head.split(b" ", 3)
                if not all(len(number) <= 20 and number.isdigit() for number in (mode, size, mtime.removeprefix(b"-"))):
                    raise ValueError
                found[os.fsdecode(name)] = Entry(int(mode, 8) & 0o177777, int(size), int(mtime), os.fsdecode(link))
        except ValueError:
            raise CopyError("the shed does not say what it has there") from None
        return root, found


def running(
    address: Address, name: str, *, user: str | None, warn: Callable[[str], None], on_start: Callable[[], None]
) -> Run:
    """Return what runs commands in the shed `name` as `user`, by default the shed's own."""

    def run(command: list[str], stdin: Callable[[BinaryIO], None] | None = None) -> bytes:
        printed = bytearray()

        def hear(data: bytes) -> None:
            printed.extend(data)
            if len(printed) > _MOST_LISTED:
                raise CopyError(f"shed {name!r} has too much to say of its files")

        ended, lines = ask(address, name, command, hear=hear, feed=stdin, user=user, on_start=on_start)
        warnings, problem, words = said_by_helper(lines)
        for text in warnings:
            warn(f"{name}: {text}")
        if ended.code or ended.error:
            why = problem or ended.error or words or f"exit code {ended.code}"
            raise CopyError(f"shed {name!r}: {told(why)}", hint="see its folder, and its user's rights there")
        return bytes(printed)

    return run


def present(rule: Rule) -> dict[str, Entry]:
    """Return what is below the rule's folder, or the file that it names as ``""``.

    Raises `AbsentError` when there is none, `CopyError` when it cannot be read.
    """
    try:
        status = rule.source.stat()
    except FileNotFoundError:
        raise AbsentError(f"there is no {rule.source}", hint="see the rule in sync.yaml") from None
    except OSError as error:
        raise CopyError(f"cannot read {rule.source}: {error.strerror}") from None
    try:
        if not stat.S_ISDIR(status.st_mode):
            return {"": Entry(status.st_mode, status.st_size, status.st_mtime_ns)}
        found: dict[str, Entry] = {}
        ahead = [""]
        while ahead:
            prefix = ahead.pop()
            with os.scandir(rule.source / prefix) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    name = prefix + entry.name
                    if excluded(name, rule.exclude):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    link = str(Path(entry.path).readlink()) if stat.S_ISLNK(status.st_mode) else ""
                    found[name] = Entry(status.st_mode, status.st_size, status.st_mtime_ns, link)
                    if stat.S_ISDIR(status.st_mode):
                        ahead.append(f"{name}/")
            if len(found) > MOST_ENTRIES:
                raise UsageError(f"{rule.source} has more than {MOST_ENTRIES:,} files", hint="exclude some")
    except OSError as error:
        raise CopyError(f"cannot read {error.filename or rule.source}: {error.strerror}") from None
    return found


def excluded(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a pattern means `name`, or a folder that it is in."""
    if not patterns:
        return False
    parts = name.split("/")
    ends = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(
        any(fnmatch.fnmatchcase(each, pattern) for each in (ends if "/" in pattern else parts)) for pattern in patterns
    )


def _alike(one: Entry, other: Entry) -> bool:
    return stat.S_IFMT(one.mode) == stat.S_IFMT(other.mode)


def folders_of(path: str) -> Iterator[str]:
    """Yield the folders that `path` is in, the outer ones first."""
    parts = path.split("/")
    yield from ("/".join(parts[:count]) for count in range(1, len(parts)))


def _within(path: str, folders: Collection[str]) -> bool:
    return bool(folders) and any(folder in folders for folder in folders_of(path))


def _pack(plan: Plan, out: BinaryIO, warn: Callable[[str], None]) -> None:
    """Write what is to be sent, with the folders that it is in.

    Nothing that has become a link meanwhile leads elsewhere: a guest may write where it comes from, too.
    """
    packer = Packer(out, warn)
    source = os.path.realpath(plan.rule.source)
    try:
        packer.add(source, plan.single or ".")
        if not plan.single:
            _pack_below(source, plan.send, packer)
        packer.finish()
    except ArchiveError as error:
        raise CopyError(str(error)) from None


def _pack_below(source: str, names: list[str], packer: Packer) -> None:
    by_folder: dict[str, list[str]] = {}
    for name in sorted({*names, *(folder for each in names for folder in folders_of(each))}):
        folder, last = os.path.split(name)
        by_folder.setdefault(folder, []).append(last)
    for folder, found in by_folder.items():
        opened = _open_folder(source, folder)
        try:
            for last in found:
                packer.add(last, f"./{folder}/{last}", opened)
        finally:
            os.close(opened)


def _open_folder(root: str, path: str) -> int:
    """Open a folder below `root` without following links.  Raises `CopyError`."""
    opened = os.open(root, _FOLDER)
    for part in path.split("/") if path else ():
        try:
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=opened)
        except OSError as error:
            raise CopyError(f"cannot read {root}/{path}: {error.strerror}") from None
        finally:
            os.close(opened)
        opened = below
    return opened


def _write(out: BinaryIO, data: bytes) -> None:
    out.write(data)
