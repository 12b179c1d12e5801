"""The OpenAPI 3.1 document, made from the table of endpoints."""

from __future__ import annotations

from typing import Any

import msgspec

from shed.api.base import API_VERSION, VERSION_HEADER, Answer, Body, NoBody
from shed.api.endpoint import Endpoint
from shed.api.endpoints import ENDPOINTS
from shed.api.events import EVENTS, Failure
from shed.api.upgrades import FRAMES, UPGRADES

Schema = dict[str, Any]
_REF = "#/components/schemas/"
_JSON, _EVENTS, _TEXT = "application/json", "text/event-stream", "text/plain"


def document() -> Schema:
    """Return the document."""
    schemas = _schemas()
    paths: dict[str, Schema] = {}
    for endpoint in ENDPOINTS:
        for path in (endpoint.path, endpoint.old_path):
            if path:
                paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, schemas)
    shown = _structs(*_kinds())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "shed",
            "version": f"{API_VERSION}",
            "description": "The API of shed-server.  docs/reference/api.md says what may change within a version.",
        },
        "servers": [{"url": "http://localhost", "description": "the Unix socket, or the TCP port with a token"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in schemas.items() if name in shown},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the TCP port.  The Unix socket needs none.",
                }
            },
        },
        "x-events": {name: {"$ref": _REF + kind.__name__} for name, kind in EVENTS.items()},
        "x-upgrades": {name: _upgrade(name) for name in UPGRADES},
    }


def answer_schema(kind: type[Any]) -> Schema:
    """Return the schema of an answer, or of an event, by itself: with all that it refers to, and closed.

    What a server sends has no members beyond it; a client that reads it accepts more.
    """
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for name, member in _structs(kind).items():
        _finish(components[name], member)
        components[name]["additionalProperties"] = False
    return {**schema, "$defs": components}


def _kinds() -> list[type[Any]]:
    """Return the structs that have a schema of their own in the document."""
    kinds: list[Any] = [Failure, *EVENTS.values()]
    kinds += [frame.payload for frame in FRAMES if not isinstance(frame.payload, str)]
    for endpoint in ENDPOINTS:
        kinds += [
            kind
            for kind in (endpoint.body, endpoint.answer, endpoint.stream)
            if kind is not NoBody and _is_struct(kind)
        ]
    return list(dict.fromkeys(kinds))


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _structs(*kinds: type[Any]) -> dict[str, type[Any]]:
    """Return these structs, and those in their members, by name."""
    found: dict[str, type[Any]] = {}

    def look(kind: msgspec.inspect.Type) -> None:
        match kind:
            case msgspec.inspect.Metadata(type=inner):
                look(inner)
            case msgspec.inspect.UnionType(types=types):
                for each in types:
                    look(each)
            case msgspec.inspect.ListType(item_type=inner) | msgspec.inspect.DictType(value_type=inner):
                look(inner)
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                found[cls.__name__] = cls
                for field in fields:
                    look(field.type)

    for kind in kinds:
        look(msgspec.inspect.type_info(kind))
    return found


def _schemas() -> dict[str, Schema]:
    """Return the schemas of all structs by name, those of parameters too."""
    kinds = [*_kinds(), *dict.fromkeys(endpoint.params for endpoint in ENDPOINTS)]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
    structs = _structs(*kinds)
    assert structs.keys() == components.keys(), "two structs of one name"
    for name, kind in structs.items():
        _finish(components[name], kind)
    return components


def _finish(schema: Schema, kind: type[Any]) -> None:
    """Say of a struct's schema what msgspec does not know: what is always there, and where null is taken."""
    about = msgspec.inspect.type_info(kind)
    assert isinstance(about, msgspec.inspect.StructType)
    properties = schema["properties"]
    if issubclass(kind, Answer):
        schema["required"] = [field.encode_name for field in about.fields if not _may_be_absent(field.type)]
        for member in properties.values():
            member.pop("default", None)
    elif issubclass(kind, Body):
        for field in about.fields:
            if not field.required:
                properties[field.encode_name] = _or_null(properties[field.encode_name])


def _may_be_absent(kind: msgspec.inspect.Type) -> bool:
    return isinstance(kind, msgspec.inspect.Metadata) and bool((kind.extra or {}).get("optional"))


def _or_null(schema: Schema) -> Schema:
    if {"type": "null"} in schema.get("anyOf", ()):
        return schema
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def _operation(endpoint: Endpoint[Any, Any, Any], path: str, schemas: dict[str, Schema]) -> Schema:
    old = path == endpoint.old_path
    summary, _, more = endpoint.summary.partition(".  ")
    right = f"Needs the right `{endpoint.right.word}`."
    operation: Schema = {
        "operationId": f"{endpoint.name}_by_path" if old else endpoint.name,
        "summary": summary,
        "description": f"{more}.  {right}" if more else right,
        "x-right": endpoint.right.word,
        "parameters": _parameters(endpoint, path, schemas[endpoint.params.__name__]),
        "responses": _responses(endpoint),
    }
    if old:
        operation["deprecated"] = True
    if endpoint.upgrade:
        operation["x-upgrade"] = endpoint.upgrade
    if endpoint.body is not NoBody:
        schema = _with_old_names(endpoint, {"$ref": _REF + endpoint.body.__name__}, schemas)
        required = bool(schemas[endpoint.body.__name__].get("required"))
        operation["requestBody"] = {"required": required, "content": {_JSON: {"schema": schema}}}
    return operation


def _parameters(endpoint: Endpoint[Any, Any, Any], path: str, schema: Schema) -> list[Schema]:
    found = []
    old_in_path = {old.member: old.name for old in endpoint.old if old.place == "path" and f"{{{old.name}}}" in path}
    for name, member in schema["properties"].items():
        shown = old_in_path.get(name, name)
        place = "path" if f"{{{shown}}}" in path else "query"
        found.append(_parameter(shown, place, member, required=name in schema.get("required", ())))
    by_member = {**schema["properties"], **_body_properties(endpoint)}
    for old in endpoint.old:
        if old.place == "query" and old.member not in old_in_path:
            # Either spelling will do, so neither is required.
            for one in found:
                if one["name"] == old.member and one["in"] == "query":
                    one["required"] = False
            found.append({**_parameter(old.name, "query", by_member[old.member], required=False), "deprecated": True})
    return found


def _parameter(name: str, place: str, member: Schema, *, required: bool) -> Schema:
    schema = {key: value for key, value in member.items() if key != "description"}
    types = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if types:  # nothing says null in a query
        schema = {**{key: value for key, value in schema.items() if key not in {"anyOf", "default"}}, **types[0]}
    elif isinstance(schema.get("type"), list):
        schema["type"] = schema["type"][0]
    return {
        "name": name,
        "in": place,
        "required": required or place == "path",
        "description": member.get("description", ""),
        "schema": schema,
    }


def _body_properties(endpoint: Endpoint[Any, Any, Any]) -> dict[str, Schema]:
    _, components = msgspec.json.schema_components([endpoint.body])
    properties: dict[str, Schema] = components[endpoint.body.__name__]["properties"]
    return properties


def _with_old_names(endpoint: Endpoint[Any, Any, Any], schema: Schema, schemas: dict[str, Schema]) -> Schema:
    """Return the schema of a body in which a member may have an old name."""
    old = {one.name: one.member for one in endpoint.old if one.place == "body"}
    if not old:
        return schema
    whole = schemas[endpoint.body.__name__]
    properties = dict(whole["properties"])
    for name, member in old.items():
        properties[name] = {**properties[member], "deprecated": True, "description": f"Old name of `{member}`."}
    required = [member for member in whole.get("required", ()) if member not in old.values()]
    one_of = [{"oneOf": [{"required": [member]}, {"required": [name]}]} for name, member in old.items()]
    return {**whole, "properties": properties, "required": required, "allOf": one_of}


def _responses(endpoint: Endpoint[Any, Any, Any]) -> Schema:
    found: Schema = {}
    headers = {VERSION_HEADER: {"description": "The version of this API.", "schema": {"type": "string"}}}
    if endpoint.upgrade:
        found["101"] = {"description": f"The connection goes on as `{endpoint.upgrade}`.", "headers": headers}
    content: Schema = {}
    if endpoint.answer is str:
        content[_TEXT] = {"schema": {"type": "string"}}
    elif endpoint.answer is not bytes:
        content[_JSON] = {"schema": _schema_of(endpoint.answer)}
    if endpoint.stream is not None:
        content[_EVENTS] = {"schema": _stream_schema(endpoint.stream)}
    if endpoint.events:
        content[_EVENTS] = {"schema": _event_schema(endpoint)}
    if content:
        statuses = {endpoint.status, *endpoint.other_statuses, *({200} if endpoint.events else ())}
        for status in sorted(statuses):
            shown = content
            if endpoint.events and endpoint.status != 200:
                shown = {kind: value for kind, value in content.items() if (kind == _EVENTS) == (status == 200)}
            found[f"{status}"] = {"description": "Done.", "headers": headers, "content": shown}
    failure = {"schema": {"$ref": _REF + Failure.__name__}}
    found["default"] = {"description": "What went wrong.", "headers": headers, "content": {_JSON: failure}}
    return found


def _event_schema(endpoint: Endpoint[Any, Any, Any]) -> Schema:
    """Return the schema of one server-sent event, as OpenAPI 3.2 describes them."""
    kinds = {**{name: _schema_of(kind) for name, kind in EVENTS.items()}, "complete": _schema_of(endpoint.answer)}
    data = {"type": "string", "contentMediaType": _JSON}
    one_of = [
        {"properties": {"event": {"const": name}, "data": {**data, "contentSchema": schema}}}
        for name, schema in kinds.items()
    ]
    properties = {"event": {"type": "string"}, "data": {"type": "string"}}
    return {"type": "object", "required": ["event", "data"], "properties": properties, "oneOf": one_of}


def _stream_schema(kind: type[Any]) -> Schema:
    """Return the schema of a server-sent event that is called by the member `kind` of its data."""
    data = {"type": "string", "contentMediaType": _JSON, "contentSchema": _schema_of(kind)}
    return {"type": "object", "required": ["event", "data"], "properties": {"event": {"type": "string"}, "data": data}}


def _schema_of(kind: Any) -> Schema:
    return {"$ref": _REF + kind.__name__} if _is_struct(kind) else {"type": "object"}


def _upgrade(name: str) -> Schema:
    described: Schema = {"description": UPGRADES[name].description}
    if name == "shed-exec":
        described["frames"] = [
            {
                "type": frame.kind,
                "name": frame.name,
                "sender": frame.sender,
                "payload": frame.payload if isinstance(frame.payload, str) else _schema_of(frame.payload),
            }
            for frame in FRAMES
        ]
    return described
