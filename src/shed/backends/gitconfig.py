"""git's settings: those that a guest may write into a repository, and those that run programs.  Pure.

A guest may write what runs nothing, leads nowhere else and leaves the other settings as they are.

The new file must be one that can be read in one way only: a setting to a line, no line that goes on in the next, no
control characters. All that this does not know is refused.

Source: git-config(1), "Syntax"; config.c of git.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_BYTES = 256 << 10
_HEADER = re.compile(rb'[ \t]*\[([A-Za-z0-9-]+)(?:[ \t]+"((?:[^"\\\n]|\\["\\])*)")?\][ \t]*')
_SETTING = re.compile(rb"[ \t]*([A-Za-z][A-Za-z0-9-]*)[ \t]*(?:=(.*)|)", re.DOTALL)
_EMPTY = re.compile(rb"[ \t]*(?:[#;].*)?", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")

_HARMLESS = {
    "advice.*", "color.*", "column.*", "gc.auto", "gc.autodetach", "gc.pruneexpire", "gc.reflogexpire",
    "gc.reflogexpireunreachable", "core.abbrev", "core.autocrlf", "core.bare", "core.commitgraph", "core.compression",
    "core.eol", "core.filemode", "core.ignorecase", "core.logallrefupdates", "core.multipackindex",
    "core.precomposeunicode", "core.preloadindex", "core.quotepath", "core.repositoryformatversion", "core.safecrlf",
    "core.sparsecheckout", "core.sparsecheckoutcone", "core.symlinks", "core.untrackedcache",
    "branch.?.description", "branch.?.merge", "branch.?.pushremote", "branch.?.rebase", "branch.?.remote",
    "branch.autosetupmerge", "branch.autosetuprebase", "branch.sort",
    "diff.algorithm", "diff.colormoved", "diff.renames", "extensions.noop", "extensions.worktreeconfig",
    "fetch.prune", "index.skiphash", "index.sparse", "index.version", "init.defaultbranch",
    "lfs.repositoryformatversion", "log.date", "maintenance.auto", "maintenance.strategy", "merge.conflictstyle",
    "merge.ff", "pull.ff", "pull.rebase", "push.autosetupremote", "push.default", "rebase.autosquash",
    "rebase.autostash", "remote.?.fetch", "remote.?.prune", "remote.?.prunetags", "remote.?.pushurl",
    "remote.?.tagopt", "remote.?.url", "rerere.autoupdate", "rerere.enabled", "status.*",
    "submodule.?.active", "submodule.?.branch", "submodule.?.ignore", "submodule.?.shallow", "submodule.?.url",
    "submodule.active", "submodule.recurse", "tag.sort", "user.email", "user.name",
}  # fmt: skip
"""``?`` stands for the name between quotes, ``*`` for any key of a section without one."""
_ADDRESSES = frozenset({"url", "pushurl"})
_ADDRESS = re.compile(
    rb"(?!.*::)((https?|ssh|git)://|([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!//)|/workspace/)[A-Za-z0-9_~/@][A-Za-z0-9._:~/@%+=,-]*"
)
_FETCH = re.compile(rb"\+?refs/[A-Za-z0-9._/+@*-]+:(refs/[A-Za-z0-9._/+@*-]+)")
_NOT_FETCHED = frozenset({b"config", b"config.worktree", b"hooks", b"objects", b"commondir", b"index"})
_REMOTE = re.compile(rb"[A-Za-z0-9._][A-Za-z0-9._/-]*")
_VALUES = {
    "remote.?.url": _ADDRESS, "remote.?.pushurl": _ADDRESS, "submodule.?.url": _ADDRESS, "remote.?.fetch": _FETCH,
    "branch.?.remote": _REMOTE, "branch.?.pushremote": _REMOTE,
}  # fmt: skip
"""What is named by a value: no options, no transports that are programs (``ext::``), and no folders of the host: what
git is led to by a push runs hooks.  ``/workspace`` is a folder of the guest's alone.
"""
_LEADS = frozenset({"remote", "pushremote"})


class Setting(NamedTuple):
    """One setting; section and key in lower case, as git compares them."""

    section: str
    name: bytes | None
    """What stands between quotes behind the section."""
    key: str
    value: bytes | None
    """As it is written, without the blanks around it."""


class UnclearError(Exception):
    """The file may be read in several ways."""


def parse(text: bytes) -> list[Setting]:
    """Return the settings in `text`.  Raises `UnclearError`."""
    if len(text) > MAX_BYTES or _CONTROL.search(text):
        raise UnclearError
    found = []
    section: tuple[str, bytes | None] | None = None
    for line in text.split(b"\n"):
        if line.endswith(b"\\"):
            raise UnclearError
        if _EMPTY.fullmatch(line):
            continue
        if header := _HEADER.fullmatch(line):
            section = header[1].decode().lower(), header[2]
        elif (setting := _SETTING.fullmatch(line)) and section is not None:
            value = None if setting[2] is None else setting[2].strip(b" \t")
            found.append(Setting(*section, setting[1].decode().lower(), value))
        else:
            raise UnclearError
    return found


def allowed(new: bytes, old: bytes) -> bool:
    """Tell whether a guest may replace the settings `old` by `new`.

    What is not harmless stays as it is, in its order, and so does where an existing remote or submodule is.
    """
    try:
        before, after = parse(old), parse(new)
    except UnclearError:
        return False
    known = {
        (setting.section, setting.name)
        for setting in before
        if setting.section == "remote" or setting.key in _ADDRESSES
    }

    def kept(settings: list[Setting]) -> list[Setting]:
        return [
            setting for setting in settings
            if not harmless(setting) or (setting.key in _ADDRESSES and (setting.section, setting.name) in known)
        ]  # fmt: skip

    return kept(before) == kept(after) and _goes_where_it_went(before, after)


def _goes_where_it_went(before: list[Setting], after: list[Setting]) -> bool:
    """Tell whether branches go to remotes that are the user's: those that branches had, the only one, and `origin`.

    A branch may take its remote to another name, or be removed; so what counts are the remotes.
    """
    remotes = {setting.name for setting in before if setting.section == "remote" and setting.name is not None}
    if not remotes:
        return True
    known = {setting.value for setting in before if _leads(setting)} | {b"."}
    known |= remotes if len(remotes) == 1 else remotes & {b"origin"}
    new = {setting.name for setting in after if setting.section == "remote"} - remotes
    return b"origin" not in new and all(setting.value in known for setting in after if _leads(setting))


def _leads(setting: Setting) -> bool:
    return setting.section == "branch" and setting.key in _LEADS


def harmless(setting: Setting) -> bool:
    """Tell whether a setting runs no program."""
    path = f"{setting.section}.{setting.key}" if setting.name is None else f"{setting.section}.?.{setting.key}"
    if path not in _HARMLESS and (setting.name is not None or f"{setting.section}.*" not in _HARMLESS):
        return False
    if (form := _VALUES.get(path)) is None:
        return True
    if setting.value is None or (match := form.fullmatch(setting.value)) is None:
        return False
    return form is not _FETCH or _is_below(match[1], setting.name or b"")


def _is_below(reference: bytes, remote: bytes) -> bool:
    """Tell whether what is fetched goes to where it belongs, and does not look like a git directory there."""
    return reference.startswith((b"refs/remotes/%s/" % remote, b"refs/tags/")) and not _NOT_FETCHED & set(
        reference.split(b"/")
    )


_PROGRAMS = re.compile(
    r"alias\..*|core\.(askpass|attributesfile|editor|fsmonitor|gitproxy|hookspath|pager|sshcommand|worktree)|credential\.(\?\.)?helper"
    r"|(diff|difftool|merge|mergetool|browser|man|guitool|filter|trailer|tar|gpg)\..*|sequence\.editor|pager\..*|interactive\.difffilter"
    r"|include(if)?\..*|url\..*|protocol\..*|sendemail\..*|remote\.\?\.(uploadpack|receivepack|vcs)|submodule\.\?\.update"
    r"|uploadpack\.packobjectshook|receive\.procreceiverefs|web\.browser|instaweb\..*|http\..*"
)


def runs_programs(text: bytes) -> list[str]:
    """Return the names of the settings in `text` that run programs, or lead to others that may, each once.

    All that is unclear is one.
    """
    try:
        settings = parse(text)
    except UnclearError:
        return ["(not all of it can be read for certain)"]
    found = []
    for setting in settings:
        path = f"{setting.section}.{setting.key}" if setting.name is None else f"{setting.section}.?.{setting.key}"
        if not harmless(setting) and _PROGRAMS.fullmatch(path):
            found.append(path.replace("?", (setting.name or b"").decode(errors="replace")))
    return list(dict.fromkeys(found))


def hooks_path(text: bytes) -> bytes | None:
    """Return where the settings `text` say that hooks are; None when they do not."""
    try:
        found = [setting.value for setting in parse(text) if setting[:3] == ("core", None, "hookspath")]
    except UnclearError:
        return None
    return found[-1].strip(b'"') if found and found[-1] else None
