"""JSON through the C parts of the standard library's `json`.

Importing `json` itself (with `re` and `enum`) takes too long on the way to hello.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Settings:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012


def _refuse(value: object) -> object:
    raise TypeError(f"{value!r} cannot be said in JSON")


_scan = _json.make_scanner(_Settings)  # type: ignore[arg-type]
_encode = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, False)


def loads(data: bytes) -> Any:
    """Return the JSON value in `data`.  Raises `ValueError` when it is none."""
    text = data.decode().strip()
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, SystemError, RecursionError):
        pass  # the scanner cannot say what is wrong as long as `json` is not imported
    import json

    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def dumps(value: object) -> bytes:
    """Return `value` as compact JSON.  Raises `TypeError` and `ValueError` for what JSON cannot say."""
    return "".join(_encode(value, 0)).encode()
