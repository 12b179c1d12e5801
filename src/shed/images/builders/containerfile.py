"""Which images a Containerfile names: what of one its builder resolves before anything is built.

Read are ``FROM``, ``COPY --from`` and ``RUN --mount=…,from=``, with line continuations, here-documents, the ``escape``
directive, and in ``FROM`` the arguments that come before the first stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*")
_HERE = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?([-+])([^}]*))?\})")
_FROM = re.compile(r"(?:--\S+\s+)*(\S+)(?:\s+as\s+(\S+))?", re.IGNORECASE)
_COPY_FROM = re.compile(r"(?:^|\s)--from=(\S+)")
_MOUNT = re.compile(r"(?:^|\s)--mount=(\S+)")
_OF_OTHERS = re.compile(r"(?:^|,)(?:from=|type=(?:cache|tmpfs|secret|ssh)(?:,|$))")
_MOUNT_FROM = re.compile(r"(?:^|\s)--mount=(?:\S*,)?from=([^,\s]+)")


@dataclass(frozen=True, slots=True)
class Named:
    """One image that is named."""

    written: str
    """As it is in the file: buildah takes that for the name before it puts in arguments."""
    name: str
    """With the arguments put in."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a Containerfile names."""

    images: tuple[Named, ...]
    """Each once, in the order of the file."""
    stages: frozenset[str]
    """What stages are called, in small letters."""


def read_names(text: str, arguments: Mapping[str, str]) -> Names:
    """Return what the Containerfile `text` names; `arguments` are those that are given to the build."""
    images: dict[Named, None] = {}
    stages: set[str] = set()
    known: dict[str, str] = {}
    begun = False
    for instruction, rest in _instructions(text):
        found: list[Named] = []
        stage: str | None = None
        if instruction == "ARG" and not begun:
            for word in rest.split():
                key, equals, value = word.partition("=")
                known[key] = arguments.get(key, _expand(value.strip("\"'"), known) if equals else "")
        elif instruction == "FROM" and (match := _FROM.fullmatch(rest)):
            begun, stage = True, match[2]
            found = [Named(match[1], _expand(match[1].strip("\"'"), known))]
        elif instruction in ("COPY", "ADD"):
            found = [Named(word, word) for word in _COPY_FROM.findall(rest)]
        elif instruction == "RUN":
            found = [Named(word, word) for word in _MOUNT_FROM.findall(rest)]
        images |= dict.fromkeys(one for one in found if one.name.lower() not in stages)
        stages |= {stage.lower()} if stage else set()
    return Names(tuple(images), frozenset(stages))


def takes_context(text: str) -> bool:
    """Return whether the Containerfile `text` may take a file of its context."""
    for instruction, rest in _instructions(text):
        if instruction == "ONBUILD":
            return True
        if instruction in ("COPY", "ADD") and not _COPY_FROM.search(rest):
            return True
        mounts = _MOUNT.findall(rest) if instruction == "RUN" else []
        if any(not _OF_OTHERS.search(mount) for mount in mounts):
            return True
    return False


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction, in capitals, and what follows it, on one line and without here-documents."""
    lines = iter(text.splitlines())
    escape, directives = "\\", True
    for line in lines:
        stripped = line.strip()
        directive = _DIRECTIVE.fullmatch(stripped) if directives else None
        if directive:
            escape = directive[2] if directive[1].lower() == "escape" else escape
            continue
        directives = False
        if not stripped or stripped.startswith("#"):
            continue
        while stripped.endswith(escape):
            following = next((part.strip() for part in lines if not part.lstrip().startswith("#")), "")
            stripped = f"{stripped[: -len(escape)].rstrip()} {following}".strip()
        if not stripped:
            continue
        instruction, *more = stripped.split(maxsplit=1)
        rest = more[0] if more else ""
        yield instruction.upper(), rest
        if instruction.upper() in ("RUN", "COPY", "ADD"):
            for _, end in _HERE.findall(rest):
                _skip(lines, end)


def _skip(lines: Iterator[str], end: str) -> None:
    """Skip a here-document and the line that ends it."""
    for line in lines:
        if line.strip("\t") == end:
            return


def _expand(word: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        found = known.get(match[1] or match[2], "")
        other = _expand(match[4], known) if match[3] else ""
        return {"-": found or other, "+": other if found else ""}.get(match[3] or "", found)

    return _VARIABLE.sub(value, word)
