"""What a tool takes, as the JSON Schema that a model reads."""

from __future__ import annotations

from typing import Any

import msgspec

from shed.mcp.grant import Grant

_GRANTED = {"image": "images", "prebuild": "prebuilds", "profile": "profiles"}
"""Members that take what the user allows by name alone."""


def schema_of(kind: type[msgspec.Struct], grant: Grant) -> dict[str, Any]:
    """Return the schema of a tool's arguments; what `grant` does not allow is not in it."""
    _, components = msgspec.json.schema_components([kind])
    found = components[kind.__name__]
    members: dict[str, Any] = {}
    for name, member in found["properties"].items():
        shown = _plain(member)
        if name in _GRANTED:
            allowed = getattr(grant, _GRANTED[name])
            if not allowed:
                continue
            shown = {"type": "string", "description": shown["description"], "enum": list(allowed)}
        if name == "repo":
            if not grant.repos:
                continue
            shown["description"] += f" It must begin with {' or '.join(grant.repos)}."
        members[name] = shown
    required = {"required": found["required"]} if found.get("required") else {}
    return {"type": "object", "properties": members, **required, "additionalProperties": False}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a member that can be left out, rather than be null."""
    kept = {key: value for key, value in schema.items() if key not in {"anyOf", "pattern"}}
    if kept.get("default", "") is None:
        del kept["default"]
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            kept = {**_plain(choice), **kept}
    return kept
