"""What sheds may reach: profiles of rules, the profiles of one shed, and what was decided."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shed.api.base import Answer, Body, Params, PartialAnswer, Time, says
from shed.api.sheds import MOST_LINES, ShedName, ShedParams

MOST_PROFILES = 16
"""Of one shed."""
ProfileName = Annotated[str, says("The name of the profile.", pattern="^[a-z][a-z0-9-]*$", minLength=1, maxLength=63)]
Profiles = Annotated[
    Annotated[list[ProfileName], Meta(max_length=MOST_PROFILES)],
    says("Names of egress profiles, which hold together; none: nothing is reached."),
]


class Rule(PartialAnswer, kw_only=True, frozen=True):
    """One rule: either `allow` or `deny`."""

    allow: Annotated[str, says("A name, `*.name`, `*`, or a network.", optional=True)] = ""
    deny: Annotated[str, says("As `allow`.", optional=True)] = ""
    ports: Annotated[list[int], says("The ports that it is about; absent: all.", optional=True)] = []
    methods: Annotated[list[str], says("The HTTP methods that are allowed; absent: all.", optional=True)] = []
    paths: Annotated[
        list[str], says("The paths that are allowed, such as `/repos/me/*`; absent: all.", optional=True)
    ] = []


class Profile(Answer, kw_only=True, frozen=True):
    """A named list of rules."""

    name: ProfileName = ""
    kind: Annotated[
        str, says("`built-in`; `config`: of the server's configuration; or `own`, which can be changed.")
    ] = ""
    rules: Annotated[list[Rule], says("Denials come first, then the first one that fits decides.")] = []
    log: Annotated[str, says("`refused`, or `all` when what is allowed is logged too.")] = ""


class ProfileList(Answer, kw_only=True, frozen=True):
    """All profiles."""

    profiles: Annotated[list[Profile], says("By name.")] = []
    default: Annotated[list[str], says("Those of a shed for which none are named.")] = []


class ProfileParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One profile."""

    profile: ProfileName


class NewRule(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One rule: either `allow` or `deny`."""

    allow: Annotated[str | None, says("A name, `*.name`, `*`, or a network.")] = None
    deny: Annotated[str | None, says("As `allow`.")] = None
    ports: Annotated[list[int] | None, says("The ports that it is about; absent: all.")] = None
    methods: Annotated[list[str] | None, says("The HTTP methods that are allowed; absent: all.")] = None
    paths: Annotated[list[str] | None, says("The paths that are allowed, such as `/repos/me/*`; absent: all.")] = None


class SetProfile(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The rules of a profile, in place of those that it had."""

    rules: Annotated[list[NewRule], says("At most a thousand.")]
    log: Annotated[Literal["refused", "all"], says("Whether what is allowed is logged too.")] = "refused"


class RemovedProfile(Answer, kw_only=True, frozen=True):
    """A profile that is gone."""

    name: ProfileName = ""


class ShedEgress(Answer, kw_only=True, frozen=True):
    """What one shed may reach."""

    name: ShedName = ""
    profiles: Profiles = []
    rules: Annotated[list[str], says("The rules that hold, in the order in which they are asked.")] = []
    connections: Annotated[int, says("How many it has now.")] = 0
    proxy: Annotated[str, says("The proxy by which the host reaches the outside; empty: it needs none.")] = ""
    problem: Annotated[str, says("Why it has no network; empty when it has one.")] = ""


class SetShedEgress(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The profiles of a shed from now on."""

    profiles: Profiles


class ChangedEgress(Answer, kw_only=True, frozen=True):
    """The profiles of a shed, as they are now."""

    name: ShedName = ""
    profiles: Profiles = []
    cut: Annotated[int, says("Connections that were cut because they are not allowed any more.")] = 0


class EgressLogParams(ShedParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which part of the log."""

    tail: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_LINES)] | None, says("Only so many entries from its end; 10,000 at most.")
    ] = None


class Decision(PartialAnswer, kw_only=True, frozen=True):
    """One connection, or an attempt at one; where TLS is opened, one request."""

    time: Time = ""
    shed: ShedName = ""
    name: Annotated[str, says("The host's name; absent for a bare address.", optional=True)] = ""
    address: Annotated[str, says("What was dialled, or what the shed connected to.")]
    port: Annotated[int, says("TCP port.")]
    proxy: Annotated[str, says("The host's proxy, when it went that way.", optional=True)] = ""
    allowed: Annotated[bool, says("What was decided.")]
    rule: Annotated[str, says("The rule, or what stands against it.", optional=True)] = ""
    method: Annotated[str, says("Of a request, where TLS is opened; absent for a connection.", optional=True)] = ""
    path: Annotated[str, says("Of a request, without its query; 500 characters at most.", optional=True)] = ""
    status: Annotated[int, says("The status of the answer to a request.", optional=True)] = 0
    secrets: Annotated[list[str], says("The names of the secrets that a request was given.", optional=True)] = []
    error: Annotated[str, says("Why it did not come about although it was allowed.", optional=True)] = ""
    cut: Annotated[bool, says("Whether new rules have ended it.", optional=True)] = False
    sent: Annotated[int, says("Bytes out of the shed.", optional=True)] = 0
    received: Annotated[int, says("Bytes into the shed.", optional=True)] = 0
    seconds: Annotated[float, says("How long it took.")]
    left_out: Annotated[
        int, says("Instead of a connection: how many entries before are not in the log.", optional=True)
    ] = 0


class EgressLog(Answer, kw_only=True, frozen=True):
    """What was decided about the connections of one shed."""

    entries: Annotated[list[Decision], says("The oldest first.")] = []
