"""What the user of a session lets its agent do: sheds, images, folders, and how much of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shed.errors import ForbiddenError, NotFoundError
from shed.untrusted import told

_SHOWN = 100
"""Characters of an agent's word that an error repeats."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a session may use.  What is not named here is out of its reach."""

    sheds: tuple[str, ...] = ()
    """Sheds that were there before, beside those that the session makes."""
    images: tuple[str, ...] = ()
    prebuilds: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    """Egress profiles that a new shed may be given in place of the server's default."""
    repos: tuple[str, ...] = ()
    """Beginnings of the URLs of repositories that a new shed may clone."""
    folder: Path | None = None
    """The folder of this machine to which files are copied, and from which."""
    most_sheds: int = 4
    """How many sheds of its own the session may have at one time."""
    cpus: int = 8
    """Processors of all of them together."""
    memory_mb: int = 8192
    """MiB of memory of all of them together."""
    seconds: float = 8 * 3600.0
    """How long the session may last."""
    keep: bool = False
    """Whether what it made stays when it ends."""

    def check_repo(self, url: str) -> None:
        """Raise `ForbiddenError` unless a new shed may clone `url`."""
        whole = url.partition("#")[0]
        plain = ".." not in whole and whole.isprintable() and "\\" not in whole
        if not plain or not any(whole == one or whole.startswith(f"{one.rstrip('/')}/") for one in self.repos):
            raise _refused("repository", url, self.repos, "--allow-repo")


def check_allowed(what: str, asked: str | None, allowed: Sequence[str], flag: str) -> None:
    """Raise `ForbiddenError` when `asked` is not in `allowed`; `flag` is what the user adds it with."""
    if asked is not None and asked not in allowed:
        raise _refused(what, asked, allowed, flag)


def no_shed(name: str, known: Sequence[str]) -> NotFoundError:
    """Return the error for a shed that the session does not have, whether there is one of that name or not."""
    hint = f"it has {', '.join(known)}" if known else "make one: create"
    return NotFoundError(f"this session has no shed '{told(name, _SHOWN)}'", code="SHED_NOT_FOUND", hint=hint)


def _refused(what: str, asked: str, allowed: Sequence[str], flag: str) -> ForbiddenError:
    hint = f"allowed: {', '.join(allowed)}" if allowed else f"leave it out; the user allows some with {flag}"
    return ForbiddenError(f"this session may not use the {what} '{told(asked, _SHOWN)}'", hint=hint)
