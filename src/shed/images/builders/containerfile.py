"""Which images a Containerfile names: what of one its builder resolves before anything is built.

Read are ``FROM``, ``COPY --from`` and ``RUN --mount=…,from=``, also behind ``ONBUILD``, with line continuations,
here-documents, the ``escape`` directive, and in ``FROM`` the arguments that come before the first stage.  Builders
differ in details, and old ones know no here-documents: this finds what is built on, and does not confine a builder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shed.oci.descriptor import Platform

_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*")
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'])+""")
_HERE = re.compile(r"""\d*<<-?(["']?)([A-Za-z_]\w*)\1""")
_FLAG = re.compile(rf"\s*(--{_WORD.pattern})")
_QUOTES = re.compile(r"""\\(.)|["']""")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?([-+])([^}]*))?\})")
_FROM = re.compile(r"(?:--\S+\s+)*(\S+)(?:\s+as\s+(\S+))?", re.IGNORECASE)
_OF_OTHERS = re.compile(r"(?:^|,)(?:from=|type=(?:cache|tmpfs|secret|ssh)(?:,|$))", re.IGNORECASE)
_MOUNT_FROM = re.compile(r"(?:^|,)from=([^,]+)", re.IGNORECASE)


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


def read_names(text: str, arguments: Mapping[str, str], *, within: bool = False) -> Names:
    """Return what the Containerfile `text` names; `arguments` are those that are given to the build.

    With `within`, lines of here-documents count as instructions, which they are for old builders.
    """
    images: dict[Named, None] = {}
    stages: set[str] = set()
    known = _platform()
    begun = False
    for instruction, rest in _instructions(text, within=within):
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
            found = [Named(word, word) for word in _flags(rest, "from")]
        elif instruction == "RUN":
            found = [Named(word, word) for mount in _flags(rest, "mount") for word in _MOUNT_FROM.findall(mount)]
        images |= dict.fromkeys(one for one in found if one.name.lower() not in stages)
        stages |= {stage.lower()} if stage else set()
    return Names(tuple(images), frozenset(stages))


def _platform() -> dict[str, str]:
    """Return the arguments that a builder sets."""
    here = Platform.of_host()
    values = {"OS": here.os, "ARCH": here.architecture, "VARIANT": here.variant, "PLATFORM": str(here)}
    return {f"{side}{name}": value for side in ("BUILD", "TARGET") for name, value in values.items()}


def takes_context(text: str) -> bool:
    """Return whether the Containerfile `text` may take a file of its context."""
    for instruction, rest in _instructions(text):
        if instruction in ("COPY", "ADD") and not _flags(rest, "from"):
            return True
        mounts = _flags(rest, "mount") if instruction == "RUN" else []
        if any(not _OF_OTHERS.search(mount) for mount in mounts):
            return True
    return False


def _flags(rest: str, name: str) -> list[str]:
    """Return the values of a flag in front of an instruction's words; quotes and escapes are taken away, as it is."""
    values, at = [], 0
    while match := _FLAG.match(rest, at):
        at = match.end()
        flag, _, value = _QUOTES.sub(r"\1", match[1]).partition("=")
        values += [value] if flag == f"--{name}" and value else []
    return values


def _instructions(text: str, *, within: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each instruction, in capitals, and what follows it, on one line and without here-documents.

    What an ``ONBUILD`` holds is an instruction, too.
    """
    lines = text.splitlines()
    lines.reverse()
    escape, directives = "\\", True
    while lines:
        stripped = lines.pop().strip()
        directive = _DIRECTIVE.fullmatch(stripped) if directives else None
        if directive:
            escape = directive[2] if directive[1].lower() == "escape" else escape
            continue
        directives = False
        if not stripped or stripped.startswith("#"):
            continue
        while stripped.endswith(escape):
            while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
                lines.pop()
            following = lines.pop().strip() if lines else ""
            stripped = f"{stripped[: -len(escape)].rstrip()} {following}".strip()
        instruction, _, rest = stripped.replace("\t", " ").partition(" ")
        while instruction.upper() == "ONBUILD":
            instruction, _, rest = rest.strip().partition(" ")
        if not instruction:
            continue
        yield instruction.upper(), rest.strip()
        if instruction.upper() in ("RUN", "COPY", "ADD") and not within:
            for word in _WORD.findall(rest):
                if match := _HERE.fullmatch(word):
                    _skip(lines, match[2])


def _skip(lines: list[str], end: str) -> None:
    """Skip a here-document and the line that ends it; nothing when no line does: then it is none."""
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].strip("\t") == end:
            del lines[index:]
            return


def _expand(word: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        found = known.get(match[1] or match[2], "")
        other = _expand(match[4], known) if match[3] else ""
        return {"-": found or other, "+": other if found else ""}.get(match[3] or "", found)

    return _VARIABLE.sub(value, word)
