"""``~/.shed/sync.yaml``: what `shed sync` brings into sheds.

```yaml
profiles:
  default:
    - from: ~/.gitconfig
      to: ~/.gitconfig
    - from: ~/src/project
      to: /workspace
      exclude: [node_modules, "*.pyc", build/out]
      delete: true
```

A pattern without a slash is for names at any depth, one with a slash for paths below `from`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shed.errors import NotFoundError, UsageError

SNIPPET = """\
profiles:
  default:
    - from: ~/.gitconfig
      to: ~/.gitconfig
"""
DEFAULT = "default"
_MOST_FILE = 1 << 20
_KEYS = {"from": str, "to": str, "exclude": list, "delete": bool}


@dataclass(frozen=True, slots=True)
class Rule:
    """A file or folder of this machine, and where it goes in a shed."""

    source: Path
    target: str
    """In the shed; relative to the workspace, or below the user's home with ``~``."""
    exclude: tuple[str, ...] = ()
    delete: bool = False
    """Whether what is not in `source` is deleted there."""


def read_rules(path: Path, profile: str) -> list[Rule]:
    """Return the rules of `profile` in the file `path`.

    Raises `NotFoundError` when there is no such file or profile, `UsageError` (INVALID_CONFIG) for what is wrong in it.
    """
    import yaml  # noqa: PLC0415  slow

    try:
        with path.open("rb") as file:
            text = file.read(_MOST_FILE + 1)
    except FileNotFoundError:
        raise NotFoundError(f"there is no {path}", hint=f"write one:\n{SNIPPET}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="INVALID_CONFIG") from None
    try:
        value = yaml.safe_load(text) if len(text) <= _MOST_FILE else None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _wrong(path, str(error)) from None
    profiles = value.get("profiles") if isinstance(value, dict) and value.keys() <= {"profiles"} else None
    if not isinstance(profiles, dict):
        raise _wrong(path, "it has the one key `profiles`, with a list of rules for each name")
    if profile not in profiles:
        known = ", ".join(sorted(map(str, profiles))) or "none"
        raise NotFoundError(f"there is no profile {profile!r} in {path}", hint=f"it has: {known}")
    rules = profiles[profile]
    if not isinstance(rules, list):
        raise _wrong(path, f"profile {profile} is no list of rules")
    return [_rule(path, f"rule {number} of profile {profile}", rule) for number, rule in enumerate(rules, 1)]


def _rule(path: Path, what: str, value: Any) -> Rule:
    if not isinstance(value, dict):
        raise _wrong(path, f"{what} is no mapping")
    unknown = value.keys() - _KEYS.keys()
    if unknown:
        raise _wrong(path, f"{what} has the unknown key {str(min(unknown, key=str))!r}; known: {', '.join(_KEYS)}")
    for key, kind in _KEYS.items():
        if key in value and not isinstance(value[key], kind):
            raise _wrong(path, f"{what}: {key} is {value[key]!r}")
    exclude = value.get("exclude", [])
    if not value.get("from") or not value.get("to") or not all(isinstance(each, str) and each for each in exclude):
        raise _wrong(path, f"{what} needs `from` and `to`, and texts to exclude")
    source = Path(os.path.expanduser(value["from"]))  # noqa: PTH111  relative ones are as they are
    if not source.is_absolute():
        raise _wrong(path, f"{what}: {value['from']} is not absolute", hint="begin it with / or ~/")
    if "\0" in value["to"]:
        raise _wrong(path, f"{what}: to is {value['to']!r}")
    return Rule(source, value["to"], tuple(each.strip("/") for each in exclude), value.get("delete", False))


def _wrong(path: Path, why: str, *, hint: str = "see: shed sync --help") -> UsageError:
    return UsageError(f"{path}: {why}", code="INVALID_CONFIG", hint=hint)
