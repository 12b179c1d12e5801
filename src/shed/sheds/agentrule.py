"""Where a shed may use the SSH agent of a client who forwards it: hosts, and signatures of commits, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shed.errors import UsageError

EVERYWHERE = "*"
"""Logins at any host."""
COMMITS = "@git-signing"
"""Signatures of commits and tags."""
MOST_HOSTS = 64
_HOST = re.compile(r"(?:([A-Za-z0-9_.+-]{1,64})@)?([A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class AgentHost:
    """A host where the agent may log in, as known_hosts names it."""

    name: str
    port: int | None = None
    """None: the usual one."""
    user: str = ""
    """The user there; empty for any."""

    @classmethod
    def parse(cls, text: str) -> AgentHost:
        """Return the host that ``[USER@]HOST[:PORT]`` names.  Raises `UsageError`."""
        found = _HOST.fullmatch(text)
        port = int(found[3]) if found is not None and found[3] else None
        if found is None or port == 0 or (port or 0) > 65535:
            raise UsageError(
                f"{text[:80]!r} is no host for an SSH agent",
                hint=f"name a host as in git@github.com or git.example.com:2222; {EVERYWHERE} means any host, "
                f"{COMMITS} signatures of commits",
            )
        return cls(found[2].strip("[]").lower(), None if port == 22 else port, found[1] or "")

    def __str__(self) -> str:
        host = f"[{self.name}]" if ":" in self.name else self.name
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class AgentRule:
    """What a shed may use an agent for.  Nothing, unless it is named."""

    hosts: tuple[AgentHost, ...] = ()
    everywhere: bool = False
    commits: bool = False

    @classmethod
    def parse(cls, words: Iterable[str]) -> AgentRule:
        """Return the rule of `words`: hosts, ``*`` and ``@git-signing``.  Raises `UsageError`."""
        given = list(dict.fromkeys(words))
        if len(given) > MOST_HOSTS:
            raise UsageError(f"{len(given)} hosts are too many for one shed", hint=f"name {MOST_HOSTS} at most")
        hosts = tuple(AgentHost.parse(word) for word in given if word not in {EVERYWHERE, COMMITS})
        return cls(tuple(dict.fromkeys(hosts)), EVERYWHERE in given, COMMITS in given)

    def words(self) -> list[str]:
        """Return what `parse` makes this rule of."""
        special = [word for word, given in ((EVERYWHERE, self.everywhere), (COMMITS, self.commits)) if given]
        return [*map(str, self.hosts), *special]


def checked(words: Sequence[str]) -> list[str]:
    """Return `words` as they are kept.  Raises `UsageError`."""
    return AgentRule.parse(words).words()
