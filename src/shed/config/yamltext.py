"""YAML files that people write and programs change: read strictly, and changed in place, so that comments and all else stay as they were.

A change touches the lines of one entry: a top-level key, or a key of one of the mappings under it.  The result is read
again and compared with what it should say before anybody gets it, so a file written in a way that this does not
understand is refused, never damaged.
"""

from __future__ import annotations

from typing import Any

import yaml

Path = tuple[str, ...]
"""One key, or two: that of a section and that of an entry in it."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would take the last, and ignore the others."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"{key} is there twice")
        return super().construct_mapping(node, deep)


def load(text: str) -> dict[Any, Any]:
    """Return the mapping that `text` holds; an empty one when it holds nothing.

    Raises `ValueError` with one line that says why.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  it is a safe one
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError("it must hold keys and values")
    return document


def put(text: str, path: Path, value: object) -> str:
    """Return `text` with the entry `path` set to `value`.  Raises `ValueError`."""
    wanted = load(text)
    inner = wanted
    if len(path) > 1:
        inner = wanted[path[0]] = dict(_section(wanted, path[0]))
    inner[path[-1]] = value
    return _checked(_put(text, path, value, wanted), wanted)


def drop(text: str, path: Path) -> str:
    """Return `text` without the entry `path`, and without its section when that was all of it.  Raises `ValueError`."""
    wanted = load(text)
    inner = wanted if len(path) == 1 else _section(wanted, path[0])
    if path[-1] not in inner:
        return text
    if len(path) > 1 and len(inner) == 1:
        return drop(text, path[:1])
    del inner[path[-1]]
    lines, entries = _lines(text), _entries(text, path[:-1])
    if path[-1] not in entries:  # in braces
        return _checked(_put(text, path[:1], inner, wanted), wanted)
    start, end, _ = entries[path[-1]]
    del lines[start:end]
    return _checked("".join(lines), wanted)


def _section(document: dict[Any, Any], key: str) -> dict[Any, Any]:
    section = document.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{key} must hold keys and values")
    return section


def _put(text: str, path: Path, value: object, wanted: dict[Any, Any]) -> str:
    lines, entries = _lines(text), _entries(text, path[:-1])
    if path[-1] in entries:
        start, end, column = entries[path[-1]]
    elif entries:
        _, end, column = max(entries.values())
        start = end
    elif len(path) > 1:  # its section is missing, empty, or in braces: all of it is written
        return _put(text, path[:1], wanted[path[0]], wanted)
    else:
        start = end = len(lines)
        column = 0
    written = _written({path[-1]: value})
    lines[start:end] = [" " * column + line for line in written.splitlines(keepends=True)]
    return "".join(lines)


def _written(entry: dict[str, object]) -> str:
    """Return the lines that say `entry`.

    PyYAML writes the line ends of Unicode such that it does not read them again, unless escaped.
    """
    text = yaml.safe_dump(entry, default_flow_style=False, sort_keys=False, allow_unicode=True)
    return text if yaml.safe_load(text) == entry else yaml.safe_dump(entry, default_flow_style=False, sort_keys=False)


def _lines(text: str) -> list[str]:
    """Return the lines of `text`, each with its end."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines


def _entries(text: str, path: Path) -> dict[str, tuple[int, int, int]]:
    """Return the first line of each entry of a mapping, the line behind its last, and its column.

    Nothing for one that is in braces.
    """
    node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    lines = text.splitlines()
    end = len(lines)
    for key in (*path, None):
        if not isinstance(node, yaml.MappingNode) or node.flow_style:
            return {}
        found = {}
        starts = [(name.start_mark.line, name.start_mark.column, str(name.value), value) for name, value in node.value]
        for (line, column, name, value), following in zip(starts, [*starts[1:], None], strict=True):
            last = end if following is None else following[0]
            while last > line + 1 and _between(lines[last - 1], column):
                last -= 1
            found[name] = (line, last, column, value)
        if key is None:
            return {name: place[:3] for name, place in found.items()}
        if key not in found:
            return {}
        end, node = found[key][1], found[key][3]
    raise AssertionError("not reached")


def _between(line: str, column: int) -> bool:
    """Say whether `line` holds nothing, or a comment that belongs to what follows rather than to an entry at `column`."""
    words = line.lstrip()
    return not words or (words.startswith("#") and len(line) - len(words) <= column)


def _checked(text: str, wanted: dict[Any, Any]) -> str:
    try:
        right = load(text) == wanted
    except ValueError:
        right = False
    if not right:
        raise ValueError("it is written in a way that cannot be changed by a program: change it by hand")
    return text
