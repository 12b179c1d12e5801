"""Decoding of requests: from bytes to the structs of an endpoint.

What is wrong is reported by the name of the member, as a `UsageError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from shed.api.endpoint import B, Endpoint, P
from shed.errors import UsageError
from shed.untrusted import number, told

S = TypeVar("S", bound=Struct)
_SHOWN = 40
"""Characters of a wrong value that its error shows."""
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`")
_PLACE = re.compile(r"`\$\.(\w+)")
_FLAGS = {"true": True, "false": False}
_MOST = 10**18 - 1


def decode(
    endpoint: Endpoint[P, B, Any], path: Mapping[str, str], query: Mapping[str, str], body: bytes
) -> tuple[P, B]:
    """Return the parameters and the body of a request.

    `path` holds what the endpoint's path has in braces.  Old spellings are understood.  Raises `UsageError`.
    """
    params: dict[str, Any] = {}
    members = _object(body) if endpoint.method == "POST" else {}
    for name in [*members]:
        if (member := endpoint.old_names.get(("body", name))) is not None:
            _move(members, member, name, members.pop(name))
    for place, values in (("path", path), ("query", query)):
        for name, text in values.items():
            old = endpoint.old_names.get((place, name))
            member = old or name
            if old in endpoint.body.__struct_fields__:
                _move(members, member, name, _FLAGS.get(text, text))
                continue
            if place == "query" and f"{{{member}}}" in endpoint.path:
                raise _unknown(endpoint.params, name, "of the query")
            _move(params, member, name, _value(text, _fields(endpoint.params).get(member)))
    return convert(params, endpoint.params, what="of the query"), convert(members, endpoint.body)


def _move(values: dict[str, Any], member: str, name: str, value: object) -> None:
    if member in values:
        raise UsageError(f"{member} is there twice", hint=f"{name!r} is an old name of it: leave that out")
    values[member] = value


def _object(body: bytes) -> dict[str, Any]:
    """Return the members of a JSON object that are not null; no body is an empty one.  Raises `UsageError`."""
    try:
        value = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError("the body of the request is not a JSON object", hint='send {"key": value, …}')
    return {key: member for key, member in value.items() if member is not None}


def _value(text: str, kind: msgspec.inspect.Type | None) -> object:
    """Return what a text of the path or the query says; `text` itself when it is no value of the type `kind`."""
    match _plain(kind):
        case msgspec.inspect.BoolType():
            return _FLAGS.get(text, text)
        case msgspec.inspect.IntType():
            whole = number(text, 0, _MOST)
            return text if whole is None else whole
    return text


@cache
def _fields(kind: type[Struct]) -> dict[str, msgspec.inspect.Type]:
    """Return the types of a struct's members."""
    about = msgspec.inspect.type_info(kind)
    assert isinstance(about, msgspec.inspect.StructType)
    return {field.encode_name: field.type for field in about.fields}


def _plain(kind: msgspec.inspect.Type | None) -> msgspec.inspect.Type | None:
    """Return a type without what is said of it, and without null."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _plain(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return _plain(next(each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType)))
    return kind


def convert(values: dict[str, Any], kind: type[S], *, what: str = "") -> S:
    """Return the object of `kind` with these members; `what` says in errors where they are.  Raises `UsageError`."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        _explain(str(error), values, kind, what)


def _explain(message: str, values: dict[str, Any], kind: type[Struct], what: str) -> NoReturn:
    """Raise the error for what msgspec says of `values`."""
    fields = _fields(kind)
    if place := _PLACE.search(message):
        name = place[1]
        extra, expected = _extra(fields[name]), _expected(fields[name])
        value = values[name]
        shown = repr(value) if isinstance(value, int | float) else repr(told(value, _SHOWN))
        hint = "" if extra.get("secret") else f"it is {shown}"
        raise UsageError(f"{name} must be {expected}", code=extra.get("code"), hint=hint)
    if missing := _MISSING.search(message):
        name = missing[1]
        extra = _extra(fields[name])
        hint = f"name it with ?{name}=" if what else f"send it as the member {name!r}"
        raise UsageError(f"{name} is missing", code=extra.get("code"), hint=hint)
    found = _UNKNOWN.search(message)
    raise _unknown(kind, found[1] if found else message, what)


def _unknown(kind: type[Struct], name: str, what: str) -> UsageError:
    import difflib  # noqa: PLC0415  for mistakes only

    known = kind.__struct_fields__
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}" if known else "it takes none"
    return UsageError(f"unknown member {told(name, _SHOWN)!r} {what}".rstrip(), hint=hint)


def _extra(kind: msgspec.inspect.Type) -> dict[str, Any]:
    """Return what `shed.api.base.says` notes of a member for this module."""
    if not isinstance(kind, msgspec.inspect.Metadata):
        return {}
    return {**_extra(kind.type), **(kind.extra or {})}


def _expected(kind: msgspec.inspect.Type) -> str:
    """Return what a value of the type is, in words."""
    match _plain(kind):
        case msgspec.inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}" if len(values) > 1 else str(values[0])
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType(ge=least, le=most):
            return _bounded("a whole number", least, most)
        case msgspec.inspect.FloatType(gt=above, ge=least, le=most):
            return _bounded("a number", least, most, above)
        case msgspec.inspect.StrType(min_length=shortest, max_length=longest, pattern=pattern):
            words = f"text of {longest} characters at most" if longest else "text, not empty" if shortest else "text"
            return f"{words} that match {pattern}" if pattern else words
        case msgspec.inspect.DictType(key_type=key, value_type=value, max_length=most):
            return f"an object of {most} members at most: names are {_expected(key)}, values {_expected(value)}"
        case msgspec.inspect.ListType():
            return "a list"
        case msgspec.inspect.StructType():
            return "an object"
    return "something else"


def _bounded(what: str, least: float | None, most: float | None, above: float | None = None) -> str:
    low = f"{least:.15g}" if least is not None else f"more than {above:.15g}" if above is not None else ""
    if low and most is not None:
        return f"{what} {'from' if above is None else 'of'} {low} to {most:.15g}"
    return f"{what}, {low} at least" if low else what
