"""Which sheds `shed list` shows, and how, when it is told: ``--filter`` and ``--format``."""

from __future__ import annotations

from shed.errors import UsageError
from shed.terminal.output import cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_FILTERS = ("label", "status", "image")
_ESCAPES = (("\\t", "\t"), ("\\n", "\n"))
_LABELS = "labels."


class Filters:
    """What ``--filter`` says: a shed has all the labels that are named, and one of the states and of the images."""

    def __init__(self, words: Iterable[str]) -> None:
        """Raises `UsageError` for what is no ``label=KEY``, ``label=KEY=VALUE``, ``status=WORD`` or ``image=NAME``."""
        self._wanted: dict[str, list[str]] = {key: [] for key in _FILTERS}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or not value or key not in _FILTERS:
                raise UsageError(
                    f"--filter {word}: it cannot be told what that means",
                    hint="write label=KEY, label=KEY=VALUE, status=running, or image=NAME",
                )
            self._wanted[key].append(value)

    def fit(self, shed: dict[str, Any]) -> bool:
        """Say whether a shed is shown."""
        found = shed.get("labels")
        labels = found if isinstance(found, dict) else {}
        return all(_has(labels, wanted) for wanted in self._wanted["label"]) and all(
            not wanted or shed.get(key) in wanted for key, wanted in self._wanted.items() if key != "label"
        )


def _has(labels: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


class Format:
    """A line for each shed: ``{name} is {status}``; ``{labels.KEY}`` is one label, ``{{`` and ``}}`` are braces."""

    def __init__(self, text: str) -> None:
        """Raises `UsageError` for a name that no shed has, and for braces that do not fit."""
        for escape, character in _ESCAPES:
            text = text.replace(escape, character)
        self._parts: list[tuple[str, str]] = []
        """Pairs of a text and the name of a member behind it, which is empty at the end."""
        plain = ""
        while text:
            if text[:2] in {"{{", "}}"}:
                plain, text = plain + text[0], text[2:]
            elif text[0] == "{":
                name, brace, text = text[1:].partition("}")
                if not brace:
                    raise _wrong("a { has no }")
                self._parts.append((plain, _known(name)))
                plain = ""
            elif text[0] == "}":
                raise _wrong("a } has no {")
            else:
                plain, text = plain + text[0], text[1:]
        self._parts.append((plain, ""))

    def line(self, shed: dict[str, Any]) -> str:
        """Return the line for a shed; what it does not have is empty."""
        return "".join(plain + (_value(shed, name) if name else "") for plain, name in self._parts)


def _known(name: str) -> str:
    """Return `name`, which a shed has.  Raises `UsageError`."""
    from shed.api.sheds import Shed

    if name in Shed.__struct_fields__ or (name.startswith(_LABELS) and name != _LABELS):
        return name
    raise _wrong(f"a shed has no {name!r}; it has {', '.join(Shed.__struct_fields__)}, and labels.KEY")


def _value(shed: dict[str, Any], name: str) -> str:
    if name.startswith(_LABELS):
        labels = shed.get("labels")
        return str(labels.get(name.removeprefix(_LABELS), "")) if isinstance(labels, dict) else ""
    value = shed.get(name)
    return "" if value is None else cell(value)


def _wrong(why: str) -> UsageError:
    return UsageError(f"--format: {why}", hint="for example --format '{name} {status}'")
