"""The pinned host keys of SSH fronts: ``~/.shed/known_hosts``.

The file has OpenSSH's form (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

What somebody else wrote into it, comments too, stays as it is.
"""

from __future__ import annotations

from pathlib import Path

from shed.errors import ConflictError
from shed.fsutil import atomic_write, locked, storage_errors
from shed.sshkeys import PublicKey


def default_known_hosts() -> Path:
    """Return the path of the user's file; it need not exist."""
    return Path("~/.shed/known_hosts").expanduser()


def pin(path: Path, host: str, port: int, key: str, *, replace: bool = False) -> None:
    """Pin `key` in `path` as the only host key of `host` and `port`.

    `key` is ``TYPE BASE64``, and a comment may follow.

    Raises `ConflictError` (HOST_KEY_CHANGED) when another key is pinned there, unless it is to be replaced, and
    `DataError` for a key that is none.
    """
    name, key = pattern(host, port), str(PublicKey.parse(key))
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        lines = _read(path)
        found = {_key(line) for line in lines if _names(line) == [name]}
        if found == {key}:
            return
        if found and not replace:
            raise ConflictError(
                f"the host key of {name} is not the one that {path} knows",
                code="HOST_KEY_CHANGED",
                hint=f"if it is meant to be another one: ssh-keygen -R '{name}' -f {path}; otherwise somebody may be "
                "in between",
            )
        kept = [line for line in lines if _names(line) != [name]]
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        atomic_write(path, "".join([*kept, f"{name} {key}\n"]).encode("utf-8", "surrogateescape"), mode=0o600)


def pattern(host: str, port: int) -> str:
    """Return how a known_hosts file names `host` and `port`."""
    return host if port == 22 else f"[{host}]:{port}"


def _read(path: Path) -> list[str]:
    try:
        with storage_errors(path):
            return path.read_bytes().decode("utf-8", "surrogateescape").splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _names(line: str) -> list[str]:
    """Return the hosts that a line is about; none for a comment, a marker (``@revoked``) or an empty line."""
    words = line.split(None, 1)
    return words[0].split(",") if words and not words[0].startswith(("#", "@")) else []


def _key(line: str) -> str:
    return " ".join(line.split()[1:3])
