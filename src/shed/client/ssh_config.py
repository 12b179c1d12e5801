"""What OpenSSH needs to know of sheds (ssh_config(5)), and having it read that.

The sheds' hosts are in a file of ours, ``~/.shed/ssh_config``.  The user's own file gets three lines at its top that
include it, between marks: an ``Include`` behind a ``Host`` would be that host's alone.  All other bytes of the user's
file stay, and taking the lines out again gives back the file as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from shed.errors import DataError
from shed.fsutil import atomic_write, locked, storage_errors

_BEGIN = b"# >>> shed >>> (`shed ssh-config --uninstall` takes these lines out"
_MADE = b", and this file away"
_END = b"# <<< shed <<<\n"
_HEAD = "# Written by `shed ssh-config --install`: changes made here are lost.\n"
_HOST = re.compile(r"^Host (\S+)\n    # on (\S+)\n(?:    (?:User (\S+)|.*)\n)*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Host:
    """One shed as a host of ssh.

    `alias` is what the user types, `jump` the ``ssh://`` address of the machine with its server.
    """

    alias: str
    server: str
    shed: str
    hostname: str
    port: int
    known_hosts: Path
    key_name: str | None = None
    """How the file of known hosts calls the server, when that is not the host's name and port."""
    jump: str | None = None
    identity: Path | None = None
    """The private key that lets the user in; None where it does not."""

    def text(self) -> str:
        """Return its lines."""
        lines = [
            f"Host {self.alias}",
            f"# on {self.server}",
            f"HostName {self.hostname}",
            f"Port {self.port}",
            f"User {self.shed}",
        ]
        lines += [f"UserKnownHostsFile {_quoted(self.known_hosts)}", "StrictHostKeyChecking yes"]
        # Only this one: who tries all keys of a full agent first is turned away.  What ForwardAgent forwards is not
        # limited by it.
        lines += [f"IdentityFile {_quoted(self.identity)}", "IdentitiesOnly yes"] if self.identity is not None else []
        lines += [f"HostKeyAlias {self.key_name}"] if self.key_name is not None else []
        lines += [f"ProxyJump {self.jump}"] if self.jump is not None else []
        return "\n    ".join(lines) + "\n"


def text_of(hosts: Iterable[Host]) -> str:
    """Return the lines of several hosts."""
    return "\n".join(host.text() for host in hosts)


def merged(before: str, hosts: Iterable[Host], *, keep_servers: Iterable[str], keep_all: bool) -> str:
    """Return our file with `hosts` in it.

    Of those `before`, the ones on `keep_servers` stay, or with `keep_all` all that are not new.
    """
    blocks = {match[1]: match[0] for match in _HOST.finditer(before) if keep_all or match[2] in set(keep_servers)}
    blocks |= {host.alias: host.text() for host in hosts}
    return _HEAD + "".join("\n" + blocks[alias] for alias in sorted(blocks))


def aliases(text: str) -> list[str]:
    """Return the hosts in our file."""
    return [match[1] for match in _HOST.finditer(text)]


def hosts_of(text: str, shed: str) -> list[tuple[str, str]]:
    """Return alias and server of each host in our file that is a shed of that name, the shortest alias first."""
    found = [(match[1], match[2]) for match in _HOST.finditer(text) if match[3] == shed]
    return sorted(found, key=lambda each: (len(each[0]), each))


def read(path: Path) -> str:
    """Return what our file says; nothing when it is not there."""
    return (_bytes(path) or b"").decode(errors="replace")


def install(user_file: Path, ours: Path, text: str) -> None:
    """Write `text` to our file, and have the user's file include it.  Raises `DataError`, `StorageError`."""
    with storage_errors(ours):
        ours.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        user_file.parent.mkdir(mode=0o700, exist_ok=True)
    with locked(ours.with_name(f".{ours.name}.lock")):
        atomic_write(ours, text, mode=0o600)
        before = _bytes(user_file)
        rest, made = _without_lines(before or b"", user_file)
        made = made or before is None
        lines = _BEGIN + (_MADE if made else b"") + b")\nInclude " + _pattern(ours).encode() + b"\n" + _END
        _write(user_file, before, lines + rest)


def keep_current(ours: Path, hosts: Iterable[Host], *, gone: Iterable[tuple[str, str]] = ()) -> None:
    """Add `hosts` to our file, and take those of sheds out that are `gone`, by server and name.

    Does nothing where it was not installed.  Raises `StorageError`.
    """
    if not ours.exists():
        return
    with locked(ours.with_name(f".{ours.name}.lock")):
        before = read(ours)
        left = before
        for match in _HOST.finditer(before):
            if (match[2], match[3]) in set(gone):
                left = left.replace(f"\n{match[0]}", "")
        there = {match[1]: match[2] for match in _HOST.finditer(left)}
        named = [
            replace(host, alias=f"{host.alias}.{host.server}")
            if there.get(host.alias, host.server) != host.server  # another server has a shed of the same name
            else host
            for host in hosts
        ]
        text = merged(left, named, keep_servers=(), keep_all=True)
        if text != before:
            atomic_write(ours, text, mode=0o600)


def uninstall(user_file: Path, ours: Path) -> list[str]:
    """Take our lines out of the user's file, and our file away; return the hosts that were in it.

    Raises `DataError`, `StorageError`.
    """
    if not ours.parent.exists():
        return []
    with locked(ours.with_name(f".{ours.name}.lock")):
        before = _bytes(user_file)
        if before is not None:
            rest, made = _without_lines(before, user_file)
            if made and not rest:
                with storage_errors(user_file):
                    user_file.unlink()
            else:
                _write(user_file, before, rest)
        hosts = aliases(read(ours))
        with storage_errors(ours):
            ours.unlink(missing_ok=True)
    return hosts


def _without_lines(content: bytes, path: Path) -> tuple[bytes, bool]:
    """Return a file without our lines, and whether they say that we made it."""
    start = content.find(_BEGIN)
    if start < 0:
        return content, False
    end = content.find(_END, start)
    if end < 0:
        raise DataError(
            f"{path}: the lines of shed begin, but do not end",
            hint=f"remove what is left of them by hand: {_BEGIN.decode()}…",
        )
    made = content[start + len(_BEGIN) :].startswith(_MADE)
    return content[:start] + content[end + len(_END) :], made


def _write(path: Path, before: bytes | None, content: bytes) -> None:
    """Replace a file of the user's; a link to it, its mode and its owner stay."""
    if content == before:
        return
    with storage_errors(path):
        real = path.resolve()
        mode = 0o600 if before is None else real.stat().st_mode & 0o7777
    atomic_write(real, content, mode=mode)


def _bytes(path: Path) -> bytes | None:
    try:
        with storage_errors(path):
            return path.read_bytes()
    except FileNotFoundError:
        return None


def _quoted(path: Path) -> str:
    """Return a path as a word that OpenSSH expands, so that percent signs are doubled."""
    return _word(str(path).replace("%", "%%"))


def _pattern(path: Path) -> str:
    """Return a path as a pattern for Include.

    Newer versions of OpenSSH expand percent signs in it, older ones do not.
    """
    return _word(re.sub(r"[%*?\[\]\\{}]", "?", str(path)))


def _word(text: str) -> str:
    return f'"{text}"' if re.search(r"[\s#'=]", text) else text
