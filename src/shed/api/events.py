"""What a server tells beside an answer: errors, and the events of long work (``text/event-stream``)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from shed.api.base import Answer, PartialAnswer, says


class Fault(PartialAnswer, kw_only=True, frozen=True):
    """What went wrong."""

    code: Annotated[str, says("For programs: see the table of errors.")] = ""
    message: Annotated[str, says("One sentence for people.")] = ""
    hint: Annotated[str | None, says("What to do about it.", optional=True)] = None


class Failure(Answer, kw_only=True, frozen=True):
    """The answer to a request that failed."""

    error: Annotated[Fault, says("What went wrong.")] = Fault()


class ProgressEvent(Answer, kw_only=True, frozen=True):
    """`progress`: the work has entered a phase, or has a warning."""

    phase: Annotated[str, says("Name of the phase; empty for a warning.")] = ""
    message: Annotated[str, says("For people.")] = ""
    warning: Annotated[bool | UnsetType, says("True for a warning.", optional=True)] = UNSET


class BytesEvent(Answer, kw_only=True, frozen=True):
    """`bytes`: how far a transfer is."""

    label: Annotated[str, says("What is transferred.")] = ""
    current: Annotated[int, says("Bytes that are done.")] = 0
    total: Annotated[int | None, says("Bytes in all; null while that is unknown.")] = None


class BlobEvent(Answer, kw_only=True, frozen=True):
    """`blob`: how far a blob of an image is.  Only with `?progress=blob`."""

    digest: Annotated[str, says("Of the blob.")] = ""
    label: Annotated[str, says("What it is: `kernel`, `rootfs`, `layer 2`.")] = ""
    status: Annotated[str, says("`downloading`, `exists` (it was here) or `done`.")] = ""
    current: Annotated[int, says("Bytes that are here.")] = 0
    total: Annotated[int | None, says("Bytes in all; null while that is unknown.")] = None


class OutputEvent(Answer, kw_only=True, frozen=True):
    """`output`: a program in a shed that is part of the work has said something.  Some may be left out."""

    line: Annotated[str, says("One line, printable.")] = ""


class ErrorEvent(Fault, kw_only=True, frozen=True):
    """`error`: the work failed.  It is the last event."""

    status: Annotated[int, says("The HTTP status that the answer would have had.")] = 0


EVENTS: dict[str, type[Any]] = {
    "progress": ProgressEvent,
    "bytes": BytesEvent,
    "blob": BlobEvent,
    "output": OutputEvent,
    "error": ErrorEvent,
}
"""The events by name.  ``complete``, the last one of work that succeeds, has the answer of the endpoint."""
