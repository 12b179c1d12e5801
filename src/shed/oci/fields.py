"""JSON from outside: decoded within limits, and every member taken out with its type checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shed.errors import DataError

MAX_JSON = 8 << 20
"""Most bytes of a manifest, an index, or a config.  Registries refuse manifests over 4 MiB."""
MAX_SIZE = 1 << 62
"""Most bytes a descriptor may claim."""


def decode_object(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `data`; `what` names it in the `DataError` raised when it is not one."""
    if len(data) > MAX_JSON:
        raise DataError(f"{what} is too large: {len(data)} bytes, at most {MAX_JSON} are read")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{what} is not a JSON object")
    return value


def encode_object(value: Mapping[str, Any]) -> bytes:
    """Return `value` as JSON, indented by two spaces: digests depend on these bytes."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


class Fields:
    """The members of a JSON object; unknown ones are ignored, known ones must have the right type."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise DataError(f"{what} is not a JSON object")
        self.value: dict[str, Any] = value
        self.what = what

    def wrong(self, key: str, wanted: str) -> DataError:
        """Return the error for a member that is missing or not what it should be."""
        state = "is missing" if key not in self.value else f"is not {wanted}"
        return DataError(f"{self.what}: {key!r} {state}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string member; a missing or null one is `default`, or an error when there is none."""
        found = self.value.get(key)
        if found is None:
            found = default
        if not isinstance(found, str):
            raise self.wrong(key, "a string")
        return found

    def integer(self, key: str) -> int:
        """Return a member that is a whole number from 0 to `MAX_SIZE`."""
        found = self.value.get(key)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= MAX_SIZE:
            raise self.wrong(key, "a whole number in range")
        return found

    def texts(self, key: str) -> dict[str, str]:
        """Return a member that maps strings to strings; a missing or null one is empty, and null is no string in it."""
        found = self.value.get(key)
        if found is None:
            return {}
        if not isinstance(found, dict) or not all(isinstance(item, str | None) for item in found.values()):
            raise self.wrong(key, "an object of strings")
        return {name: item for name, item in found.items() if item is not None}

    def items(self, key: str, limit: int) -> list[Any]:
        """Return a member that is a list of at most `limit` items."""
        found = self.value.get(key)
        if not isinstance(found, list):
            raise self.wrong(key, "a list")
        if len(found) > limit:
            raise DataError(f"{self.what}: {key!r} has {len(found)} items, at most {limit} are allowed")
        return found

    def object(self, key: str) -> Any:
        """Return a member of any type; a missing one is an error."""
        if key not in self.value:
            raise self.wrong(key, "an object")
        return self.value[key]
