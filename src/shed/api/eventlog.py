"""What happens on a server: the stream of events about sheds and about what they reach."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.base import Answer, Params, PartialAnswer, Time, says
from shed.api.egress import Decision
from shed.api.sheds import ShedName

KEPT = 1000
"""Events that a server remembers."""
KINDS = {
    "shed.created": "A shed was made, and runs.",
    "shed.started": "A shed was started.",
    "shed.stopped": "A shed was stopped, or its virtual machine has ended by itself.",
    "shed.idle": "A shed is idle: `message` says when it is suspended, unless it is used before.",
    "shed.suspended": "A shed was suspended; `message` says so when it was idle, or its time was up.",
    "shed.resumed": "A suspended shed goes on where it was.",
    "shed.expiring": "The time of a shed is nearly up: `message` says when it is deleted.",
    "shed.deleted": "A shed was deleted; `message` says so when its time was up.",
    "shed.out-of-memory": "The kernel of a shed has ended a program for want of memory; `message` names it.",
    "shed.disk-full": "The disk of a shed is full, or nearly so.",
    "shed.failed": "What was to be done with a shed has failed; `message` says why.",
    "egress.rules": "Other rules hold for what a shed may reach.",
    "egress.refused": "A connection was refused.",
    "egress.cut": "A connection was ended because it is not allowed any more.",
    "egress.failed": "A connection was allowed, and did not come about.",
    "egress.allowed": "A connection that was allowed has ended; only with a profile that logs all.",
    "egress.connected": "A connection that is allowed begins.  It is told only to clients that name this kind.",
    "egress.left_out": "Decisions that were not logged, because there were too many, or the disk is full.",
    "agent.refused": "A shed was refused the use of a client's SSH agent.",
    "dropped": "This client did not read fast enough: `count` events are missing here.",
}
ON_REQUEST = frozenset({"egress.connected"})
"""Kinds that are told only to those who name them: there may be a thousand in a second."""


class EventParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which events."""

    shed: Annotated[ShedName | None, says("Only those of this shed.")] = None
    kind: Annotated[
        Annotated[str, Meta(max_length=500)] | None,
        says("Only these kinds, with commas between them; `shed` and `egress` are all kinds of their group."),
    ] = None
    tail: Annotated[
        Annotated[int, Meta(ge=0, le=KEPT)] | None,
        says("Begin with the last so many of those that are remembered; absent: all of them."),
    ] = None


class Event(PartialAnswer, kw_only=True, frozen=True):
    """Something that has happened."""

    time: Time = ""
    kind: Annotated[str, says("What has happened: see the table of kinds.")] = ""
    shed: Annotated[str, says("The name of the shed that it is about.", optional=True)] = ""
    message: Annotated[str, says("For people.", optional=True)] = ""
    count: Annotated[int, says("How many, for `dropped` and `egress.left_out`.", optional=True)] = 0
    decision: Annotated[Decision | None, says("For what sheds reach: as the log has it.", optional=True)] = None


class EventList(Answer, kw_only=True, frozen=True):
    """What has happened lately."""

    events: Annotated[list[Event], says(f"The oldest first; the server remembers {KEPT}, since its start.")] = []
