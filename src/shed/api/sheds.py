"""Sheds, their life, and the tmux sessions in them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shed.api.base import Answer, Body, Params, PartialAnswer, Time, Timings, Warnings, WorkParams, says
from shed.names import MAX_NAME

MAX_WAIT = 86400.0
"""Most seconds that a start may take."""
MAX_TTL = 10 * 366 * 86400.0
"""Most seconds after which a shed may be deleted."""
MAX_DEPTH = 1 << 30
MOST_LINES = 1_000_000_000
ShedName = Annotated[
    str,
    says("The name of the shed.", pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", minLength=1, maxLength=MAX_NAME),
]
SnapshotName = Annotated[
    str,
    says(
        "The name of the snapshot.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        minLength=1,
        maxLength=MAX_NAME,
        code="INVALID_SNAPSHOT_NAME",
    ),
]
PrebuildName = Annotated[
    str,
    says("The name of the prebuild.", pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", minLength=1, maxLength=MAX_NAME),
]
MAX_VARIABLES = 1000
Status = Literal["running", "stopped", "suspended", "starting", "error"]
Mode = Literal["rw", "ro", "git-rw"]
Restart = Literal["no", "always"]
TtlAction = Literal["delete", "stop", "suspend"]
NetworkKind = Literal["relay", "nic"]
LabelKey = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$(?!\n)")]
LabelValue = Annotated[str, Meta(max_length=255)]
MAX_LABELS = 64
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=MAX_LABELS)]
VariableName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^=\s\x00]+$(?!\n)")]
VariableValue = Annotated[str, Meta(max_length=64 << 10, pattern=r"^[^\x00]*$(?!\n)")]
Variables = Annotated[dict[VariableName, VariableValue], Meta(max_length=MAX_VARIABLES)]
PortText = Annotated[str, says("`[ADDRESS:][PORT:]SHEDPORT`; without a port, or with 0, a free one is chosen.")]
HostPortText = Annotated[str, says("`PORT[:SHEDPORT]`: a port of the host, and its number in the shed.")]
MountText = Annotated[
    str,
    says(
        "`SRC:DST[:MODE]`: a folder of the server's machine, where the shed has it, and what the shed may do there: "
        "`rw` (default), `ro` or `git-rw`.",
        pattern="^/",
    ),
]
AgentHosts = Annotated[
    list[str] | None,
    says(
        "Where it may use an SSH agent that a client forwards to it: `[USER@]HOST[:PORT]`, `*` for any host, "
        "`@git-signing` for signatures of commits.  Needs the right `admin`."
    ),
]
LeaseId = Annotated[str, says("Which lease.", pattern="^[0-9a-f]{8}$")]
COLD = "Boot the VM, whatever it could be restored from."
FORCE = "Start it although the host is short of memory.  Needs the right `admin`."


class Lease(Answer, kw_only=True, frozen=True):
    """What keeps a shed awake."""

    id: LeaseId = ""
    until: Time = ""
    reason: Annotated[str, says("What for.")] = ""


class Mount(Answer, kw_only=True, frozen=True):
    """A folder of the server's machine in a shed."""

    source: Annotated[str, says("Its path on the server's machine.")] = ""
    target: Annotated[str, says("Where the shed has it.")] = ""
    mode: Annotated[str, says("What the shed may do there: `rw`, `ro` or `git-rw`.")] = ""


class Shed(PartialAnswer, kw_only=True, frozen=True):
    """One shed.

    While it is made, only the members up to `backend` are known; of one whose record cannot be read, only `name`,
    `status` and `detail`.
    """

    name: ShedName = ""
    status: Annotated[
        str,
        says("`running`, `stopped`, `suspended`, `starting`, or `error`: it cannot be started as it is, see `detail`."),
    ] = ""
    created_at: Annotated[str, says("UTC, RFC 3339.", optional=True)] = ""
    image: Annotated[str, says("The image, as it was asked for.", optional=True)] = ""
    image_digest: Annotated[str, says("Digest of the image's manifest.", optional=True)] = ""
    backend: Annotated[str, says("What runs its VM.", optional=True)] = ""
    cpus: Annotated[int, says("Number of processors.", optional=True)] = 0
    memory_mb: Annotated[int, says("Memory in MiB.", optional=True)] = 0
    upper_size_bytes: Annotated[int, says("Size of its writable layer.", optional=True)] = 0
    labels: Annotated[dict[str, str], says("What its user noted of it.", optional=True)] = {}
    pid: Annotated[int, says("Process of its VM on the server's machine.", optional=True)] = 0
    local_dir: Annotated[str, says("Folder of the server's machine at `/workspace`.", optional=True)] = ""
    local_dir_mode: Annotated[str, says("What it may do there: `rw`, `ro` or `git-rw`.", optional=True)] = ""
    mounts: Annotated[list[Mount], says("Further folders of the server's machine.", optional=True)] = []
    detail: Annotated[str, says("What is unusual about its status.", optional=True)] = ""
    egress: Annotated[list[str], says("Names of the egress profiles that rule what it reaches.", optional=True)] = []
    ports: Annotated[
        list[str], says("Ports of the host that lead into it: `ADDRESS:PORT:SHEDPORT`.", optional=True)
    ] = []
    host_ports: Annotated[list[str], says("Ports of the host that it reaches: `PORT:SHEDPORT`.", optional=True)] = []
    secrets: Annotated[list[str], says("Names of the secrets that are put into its requests.", optional=True)] = []
    expires_at: Annotated[str, says("When its time is up; UTC, RFC 3339.", optional=True)] = ""
    ttl_action: Annotated[
        str, says("What is done then, if it is not deleted with all that is in it: `stop`, `suspend`.", optional=True)
    ] = ""
    idle_suspend: Annotated[int, says("Seconds for which it must be idle to be suspended.", optional=True)] = 0
    awake: Annotated[
        list[Lease], says("What keeps it awake although it is idle, the first to end first.", optional=True)
    ] = []
    suspended_by: Annotated[
        str, says("What suspended it: `command`, `idle`, or `ttl`, its time being up.", optional=True)
    ] = ""
    suspended_at: Annotated[str, says("Since when it is suspended; UTC, RFC 3339.", optional=True)] = ""
    attached: Annotated[bool, says("Whether it is deleted when its client leaves.", optional=True)] = False
    restart: Annotated[str, says("`always`: it starts again when its VM has ended.", optional=True)] = ""
    env: Annotated[
        list[str],
        says("Names of the environment variables that it was given; their values are not told.", optional=True),
    ] = []
    ssh_agent: Annotated[
        list[str], says("Where it may use an SSH agent that is forwarded to it; absent: nowhere.", optional=True)
    ] = []
    network: Annotated[str, says("`relay`, or `nic`: no rule is asked about what it reaches.", optional=True)] = ""
    repo: Annotated[str, says("The repository that was cloned into it.", optional=True)] = ""
    repo_hosts: Annotated[
        list[str],
        says("`HOST:PORT` of that, and of dotfiles, which it reaches beside what its profiles allow.", optional=True),
    ] = []
    failed: Annotated[
        list[str], says("What went wrong in it.  In the answer to a create, start or provision.", optional=True)
    ] = []
    boot: Annotated[
        str,
        says("How its VM came up: `warm`, `cold` or `resumed`.  In the answer to a create or a start.", optional=True),
    ] = ""
    timings: Annotated[
        dict[str, float], says("Milliseconds by phase.  In the answer to a create, start or stop.", optional=True)
    ] = {}


class ShedList(Answer, kw_only=True, frozen=True):
    """All sheds."""

    sheds: Annotated[list[Shed], says("By name.")] = []
    warnings: Warnings = []


class RenameShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Another name for a shed."""

    to: ShedName


class ListParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which sheds."""

    label: Annotated[str | None, says("Only those with this label: `KEY`, or `KEY=VALUE`.")] = None


class ShedParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One shed."""

    name: ShedName


class ShedWorkParams(WorkParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Long work on one shed."""

    name: ShedName


class DeleteParams(ShedWorkParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A shed to delete."""

    force: Annotated[bool, says("Also when it runs, is being made, or its record is damaged.")] = False
    unfinished: Annotated[bool, says("Only while it is being made: what there is of it is undone.")] = False


class Deleted(Answer, kw_only=True, frozen=True):
    """A shed that is gone."""

    name: ShedName = ""
    timings: Timings = {}


class LogParams(ShedParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which part of a console log."""

    tail: Annotated[Annotated[int, Meta(ge=0, le=MOST_LINES)] | None, says("Only so many lines from its end.")] = None


class PortParams(ShedParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A TCP port in a shed."""

    port: Annotated[int, Meta(ge=1, le=65535), says("TCP port of the shed's loopback.", code="INVALID_PORT")]


class Health(Answer, kw_only=True, frozen=True):
    """What the agent in a shed says of itself.  It is the shed's own word: its root may say anything."""

    ok: Annotated[bool, says("Always true: a refusal is an error.")] = True
    uptime: Annotated[float, says("Seconds since the VM's start.")] = 0.0
    state: Annotated[str, says("How far the agent is: `ready`, when it can run commands.")] = ""
    sessions: Annotated[int, says("Commands that run.")] = 0
    name: Annotated[str, says("The name that it was told.")] = ""
    init: Annotated[str, says("Which init the image has.")] = ""


class Session(Answer, kw_only=True, frozen=True):
    """One tmux session."""

    name: Annotated[str, says("Its name.")] = ""
    shed: Annotated[str, says("The shed that it is in.")] = ""
    created_at: Time = ""
    attached: Annotated[int, says("How many terminals are attached to it.")] = 0
    windows: Annotated[int, says("How many windows it has.")] = 0


class ShedSessions(Answer, kw_only=True, frozen=True):
    """The sessions in one shed."""

    sessions: Annotated[list[Session], says("By name.")] = []


class SessionList(Answer, kw_only=True, frozen=True):
    """The sessions in all running sheds."""

    sessions: Annotated[list[Session], says("By shed.")] = []
    warnings: Warnings = []


class SessionParams(ShedParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One session."""

    session: Annotated[
        str, says("The name of the session.", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", minLength=1, maxLength=MAX_NAME)
    ]


class EndedSession(Answer, kw_only=True, frozen=True):
    """A session that is gone."""

    name: Annotated[str, says("Its name.")] = ""
    shed: Annotated[str, says("The shed that it was in.")] = ""
