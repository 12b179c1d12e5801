"""Which names anybody can register below: the Public Suffix List, as Debian's package `publicsuffix` brings it.

Format and algorithm: https://github.com/publicsuffix/list/wiki/Format.  Its private part (`github.io`) counts, too.
"""

from __future__ import annotations

from pathlib import Path

LIST = Path("/usr/share/publicsuffix/public_suffix_list.dat")


class Suffixes:
    """The list in `path`; without it, nothing is known, and nobody may guess."""

    def __init__(self, path: Path = LIST) -> None:
        self._rules: set[str] = set()
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            return
        for line in text.splitlines():
            words = line.split()
            if words and not line.startswith("//"):
                self._rules.add(_ascii(words[0]))

    @property
    def known(self) -> bool:
        """Whether there is a list."""
        return bool(self._rules)

    def registrable(self, name: str) -> str | None:
        """Return the part of `name` that somebody has registered; None for a suffix, and when there is no list."""
        if not self._rules:
            return None
        labels = name.split(".")
        size = 1  # of a suffix that the list does not have
        for start in range(len(labels)):
            rest = labels[start:]
            if "!" + ".".join(rest) in self._rules:
                size = len(rest) - 1
                break
            if ".".join(rest) in self._rules or ".".join(["*", *rest[1:]]) in self._rules:
                size = len(rest)
                break
        return ".".join(labels[-size - 1 :]) if len(labels) > size else None


def _ascii(rule: str) -> str:
    """Return a rule as name servers have it."""
    mark = "!" if rule.startswith("!") else ""
    labels = (label if label == "*" or label.isascii() else f"xn--{label.encode('punycode').decode()}"
              for label in rule.removeprefix("!").lower().split("."))  # fmt: skip
    return mark + ".".join(labels)
