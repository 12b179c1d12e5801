"""What the structs of the contract have in common, and its version."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

API_VERSION = 2
"""Goes up by one in each release that adds to the contract.

Nothing is taken away, renamed or given another meaning under the paths ``/api/…``.
"""
VERSION_HEADER = "Shed-Api-Version"
"""In an answer: the version of the server.  In a request: the least version that the client needs."""


def says(
    description: str,
    *,
    optional: bool = False,
    code: str | None = None,
    deprecated: bool = False,
    secret: bool = False,
    **schema: Any,
) -> Meta:
    """Return the description of a member.

    An `optional` member of an answer is left out when it has its default.  `schema` is what JSON Schema says of the
    member beyond its type: rules that the server checks where it uses it.  `code` is that of the error for a value that
    its type does not allow.  A `secret` one is not told in an error.
    """
    if deprecated:
        schema["deprecated"] = True
    extra = {key: value for key, value in (("optional", optional), ("code", code), ("secret", secret)) if value}
    return Meta(description=description, extra_json_schema=schema or None, extra=extra or None)


class Params(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The parameters of a request: what its path has in braces, and the members of its query."""


class Body(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The JSON object that is the body of a request; null is as good as absent."""


class Answer(Struct, kw_only=True, frozen=True):
    """A JSON object that the server sends.  It sends all members."""


class PartialAnswer(Answer, kw_only=True, frozen=True, omit_defaults=True):
    """A JSON object of which the server leaves out members that are `optional`, when they have their default."""


class WorkParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a client hears of long work; the header ``Accept: text/event-stream`` asks for events."""

    progress: Annotated[Literal["blob"] | None, says("`blob`: also an event for each blob of an image.")] = None
    detach: Annotated[bool, says("Go on with a pull when the client hangs up.")] = False


class Nothing(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class NoBody(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """No body, or an empty object."""


Timings = Annotated[dict[str, float], says("Milliseconds by phase.")]
Warnings = Annotated[list[str], says("A sentence for each thing that could not be read.")]
Time = Annotated[str, says("UTC, RFC 3339.")]
