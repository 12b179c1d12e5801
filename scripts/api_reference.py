"""Writes docs/reference/api.md from the table of endpoints: `make reference`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shed.api.base import API_VERSION, VERSION_HEADER, NoBody
from shed.api.endpoint import Endpoint
from shed.api.endpoints import ENDPOINTS
from shed.api.eventlog import KINDS
from shed.api.events import EVENTS
from shed.api.openapi import document
from shed.api.upgrades import EXEC, FRAMES, UPGRADES

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/api.md"
_NOUNS = (
    ("The server", ("/api/info", "/api/openapi.json", "/api/ssh-host-key", "/api/server", "/api/system")),
    ("What happens", ("/api/events",)),
    ("Sheds", ("/api/sheds", "/api/stats", "/api/sessions")),
    ("What sheds may reach", ("/api/egress",)),
    ("Secrets", ("/api/secrets",)),
    ("Snapshots", ("/api/snapshots",)),
    ("Prebuilds", ("/api/prebuilds",)),
    ("Images", ("/api/images",)),
    ("Tokens and keys", ("/api/tokens", "/api/ssh-keys")),
)
_HEAD = f"""# The API

Made from the program by `make reference`; a test compares the two. A running server says the same as OpenAPI 3.1
under `GET /api/openapi.json`.

HTTP/1.1 over the server's Unix socket, or over loopback TCP with `Authorization: Bearer TOKEN`. Bodies and answers
are JSON objects in UTF-8.

- Options of an action are members of the JSON body of a POST. GET and DELETE have no body: their options are in the
  query.
- A member that the server does not know is refused, so that no option is ignored without a word. `null` is as good
  as absent.
- An image is called `image`: a tag, a digest, or a reference.
- Each endpoint needs a right: `read`, `use` or `admin`; each includes the ones before it. The Unix socket has all
  of them, a token those it was made with.

```
alias api='curl --unix-socket "$XDG_RUNTIME_DIR/shed/shed.sock"'
api http://localhost/api/sheds
api http://localhost/api/sheds -H 'Accept: text/event-stream' -d '{{"name": "dev"}}'
```

## Versions

This is version {API_VERSION}. A server tells its version as `api_version` in `GET /api/info`, and in the header
`{VERSION_HEADER}` of each answer; v0.5.2 and earlier tell none.

What may change while the paths begin with `/api/`: there may be new endpoints, new members of answers, new optional
members of requests, new events, new error codes, and new values of members of answers that are text. The version
goes up by one with each release that has any of that. Nothing is taken away, renamed, or given another meaning or
type; what would need that gets new paths, `/api/v2/…`.

So a client ignores members and events that it does not know. A client that cannot do without something that is
newer sends the least version that it needs as the header `{VERSION_HEADER}`: a server that is older refuses the
request with 400 and the code `API_TOO_OLD`. A client that sends a new member of a request need not: an older server
refuses what it does not know.

## Errors

`{{"error": {{"code": …, "message": …, "hint": …}}}}`, with the status of its code. `code` is for programs,
`message` is a sentence for people, `hint` (if any) says what to do. [Errors](errors.md) has all codes.

## Events

Endpoints that take long answer with server-sent events if the request has `Accept: text/event-stream`: any number
of the first three, then `complete` or `error`. The status is 200 then. A failure before the first event is an
ordinary error. A comment (`:`) is sent every 15 seconds of silence. The query says how the client wants to hear of
the work:

- `progress=blob`: also `blob` events, again and again for each blob of an image until it is here.
- `detach=true`: a pull goes on when its client hangs up. Without it a pull, also one that a create begins with,
  ends with its client, or with the last one of several that wait for the same image. All other work goes on to
  its end in any case.
"""


def page() -> str:
    """Return the page."""
    about = document()
    schemas: dict[str, Any] = about["components"]["schemas"]
    parts = [_HEAD]
    parts.append(_table(("event", "data"), ((f"`{name}`", _link(kind.__name__)) for name, kind in EVENTS.items())))
    parts.append("`complete` has the answer of the endpoint.\n")
    parts.append("## All endpoints\n")
    rows = (
        (f"[{_request(each)}](#{_slug(_request(each))})", each.right.word, each.summary.partition(".  ")[0])
        for each in ENDPOINTS
    )
    parts.append(_table(("request", "right", ""), rows))
    for title, paths in _NOUNS:
        parts.append(f"## {title}\n")
        if paths == ("/api/events",):
            parts.append(_table(("kind of event", ""), ((f"`{kind}`", text) for kind, text in KINDS.items())))
        parts += [_endpoint(each, schemas, about) for each in ENDPOINTS if each.path.startswith(paths)]
    parts.append(_upgrades())
    parts.append("## Objects\n")
    parts.append(
        "What clients send has all members that are marked; "
        "what the server sends has all but those marked as optional.\n"
    )
    parts += [_object(name, schema) for name, schema in sorted(schemas.items())]
    return "\n".join(parts)


def _endpoint(endpoint: Endpoint[Any, Any, Any], schemas: dict[str, Any], about: dict[str, Any]) -> str:
    operation = about["paths"][endpoint.path][endpoint.method.lower()]
    lines = [
        f"### {_request(endpoint)}\n",
        f"{endpoint.summary}. Right: `{endpoint.right.word}`.\n",
    ]
    current = [each for each in operation["parameters"] if not each.get("deprecated")]
    if current:
        rows = ((f"`{each['name']}`", each["in"], _type(each["schema"]), each["description"]) for each in current)
        lines.append(_table(("parameter", "in", "type", ""), rows))
    if endpoint.body is not NoBody:
        lines.append(f"Body: {_link(endpoint.body.__name__)}.")
    if endpoint.answer is str:
        lines.append(f"Answer: {endpoint.status}, text.")
    elif endpoint.answer is bytes:
        lines.append("Answer: only the upgrade; without it 426 (`UPGRADE_REQUIRED`).")
    elif endpoint.answer.__name__ in schemas:
        statuses = " or ".join(map(str, (endpoint.status, *endpoint.other_statuses)))
        lines.append(
            f"Answer: {statuses}, {_link(endpoint.answer.__name__)}{', or events' if endpoint.events else ''}."
        )
    else:
        lines.append(f"Answer: {endpoint.status}, an object.")
    if endpoint.stream is not None:
        lines.append(f"With `Accept: text/event-stream`: {_link(endpoint.stream.__name__)} without end.")
    if endpoint.upgrade:
        lines.append(f"Upgrade: [`{endpoint.upgrade}`](#{endpoint.upgrade}).")
    old = [f"`{one.name}` in the {one.place} for `{one.member}`" for one in endpoint.old if one.place != "path"]
    if endpoint.old_path:
        old.append(f"the path `{endpoint.old_path}`")
    if old:
        lines.append(f"Deprecated, and still understood: {', '.join(old)}.")
    return "\n".join(lines) + "\n"


def _upgrades() -> str:
    text = (
        "## Upgrades\n\nWith `Connection: Upgrade` and `Upgrade: NAME`; "
        "the server answers 101, and the connection goes on as NAME.\n"
        "The page on the [protocol](protocol.md) has the bytes.\n"
    )
    for name, upgrade in UPGRADES.items():
        text += f"\n### `{name}`\n\n{upgrade.description}\n"
        if name == EXEC:
            rows = (
                (
                    f"`0x{frame.kind:02x}`",
                    frame.name,
                    frame.sender,
                    frame.payload if isinstance(frame.payload, str) else f"JSON: {_link(frame.payload.__name__)}",
                )
                for frame in FRAMES
            )
            text += "\n" + _table(("type", "frame", "from", "payload"), rows)
    return text


def _payload(payload: type[Any] | str) -> str:
    return payload if isinstance(payload, str) else f"JSON: {_link(payload.__name__)}"


def _object(name: str, schema: dict[str, Any]) -> str:
    text = f"### {name}\n\n{schema.get('description', '')}\n"
    if not schema["properties"]:
        return text
    needed, sent = schema.get("required", ()), "additionalProperties" not in schema
    rows = []
    for member, about in schema["properties"].items():
        mark = ("" if member in needed else "optional") if sent else ("needed" if member in needed else "")
        rows.append((f"`{member}`", _type(about), mark, about.get("description", "")))
    return text + "\n" + _table(("member", "type", "", ""), rows)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        bounds = {key: value for key, value in schema.items() if key not in {"anyOf", "description", "default"}}
        return " or ".join(_type({**each, **bounds} if each != {"type": "null"} else each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join("null" if value is None else f"`{value}`" for value in schema["enum"])
    kinds = schema.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_plain(kind, schema) for kind in kinds)


def _plain(kind: str, schema: dict[str, Any]) -> str:
    if kind == "array":
        return f"list of {_type(schema['items'])}" if isinstance(schema.get("items"), dict) else "list"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, dict) and inner else "object"
    low = schema.get("minimum")
    above, high = schema.get("exclusiveMinimum"), schema.get("maximum")
    if kind in {"integer", "number"} and (low is not None or above is not None or high is not None):
        least = f"{low:.15g}" if low is not None else f"more than {above:.15g}" if above is not None else ""
        return f"{kind}, {least}{f' to {high:.15g}' if high is not None else ' at least'}"
    return {"string": "text"}.get(kind, kind)


def _request(endpoint: Endpoint[Any, Any, Any]) -> str:
    return f"`{endpoint.method} {endpoint.path}`"


def _slug(heading: str) -> str:
    """Return the anchor of a heading, as sites of Markdown make it."""
    return re.sub(r"[^\w\s-]", "", heading).lower().replace(" ", "-")


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
