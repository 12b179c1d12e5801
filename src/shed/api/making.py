"""What can be asked of a shed: what a new one is to be, and what is to change of one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.base import Body, says
from shed.api.sheds import (
    COLD,
    FORCE,
    MAX_DEPTH,
    MAX_LABELS,
    MAX_TTL,
    MAX_VARIABLES,
    MAX_WAIT,
    AgentHosts,
    HostPortText,
    LabelKey,
    Labels,
    Mode,
    MountText,
    NetworkKind,
    PortText,
    PrebuildName,
    Restart,
    ShedName,
    SnapshotName,
    TtlAction,
    VariableName,
    Variables,
)
from shed.names import MAX_CPUS, MAX_IDLE, MAX_MEMORY_MB, MAX_UPPER, MIN_MEMORY_MB, MIN_UPPER


class CreateShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A shed to make.  What is absent is the server's to choose."""

    name: ShedName
    image: Annotated[
        str | None,
        says("Name in the store, alias, digest or reference.  One not named by the server needs the right `admin`."),
    ] = None
    from_snapshot: Annotated[
        SnapshotName | None, says("The snapshot that it begins with, on the image of that.  Not with `image`.")
    ] = None
    prebuild: Annotated[
        PrebuildName | None,
        says("The prebuild that it goes on from, with the settings of that.  Not with `image` or `from_snapshot`."),
    ] = None
    disk_only: Annotated[
        bool, says("Boot the disk of that snapshot, though it has memory from which the shed could go on.")
    ] = False
    cpus: Annotated[int | None, says("Number of processors.", minimum=1, maximum=MAX_CPUS)] = None
    memory_mb: Annotated[int | None, says("Memory in MiB.", minimum=MIN_MEMORY_MB, maximum=MAX_MEMORY_MB)] = None
    upper_size_bytes: Annotated[
        int | None, says("Size of its writable layer.", minimum=MIN_UPPER, maximum=MAX_UPPER)
    ] = None
    local_dir: Annotated[
        str | None,
        says("Absolute path on the server's machine, mounted at `/workspace`.  Needs the right `admin`.", pattern="^/"),
    ] = None
    local_dir_mode: Annotated[
        Mode | None,
        says(
            "What it may do there: write (`rw`), also git's settings and hooks (`git-rw`), or read (`ro`).",
            code="INVALID_LOCAL_DIR_MODE",
        ),
    ] = None
    mounts: Annotated[
        list[MountText] | None, says("Further folders of the server's machine.  Needs the right `admin`.")
    ] = None
    repo: Annotated[
        str | None,
        says(
            "URL of a repository that it clones into its workspace, and behind `#` a branch, a tag or a commit.  A "
            "host that its profiles say nothing about is opened to it, which needs the right `admin`.",
            secret=True,
        ),
    ] = None
    depth: Annotated[
        int | None, says("Commits of the repository's history; 0: all; absent: 1.", minimum=0, maximum=MAX_DEPTH)
    ] = None
    dotfiles: Annotated[
        str | None,
        says(
            "URL of a repository that it clones into its user's `~/.dotfiles` and installs from there; with `#` and "
            "its host as for `repo`.",
            secret=True,
        ),
    ] = None
    timezone: Annotated[
        str | None,
        says(
            "Its time zone, as `Europe/Berlin`, where its image knows that; empty: as its image has it; absent: that "
            "of the server's machine.",
            pattern=r"^([A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2})?$",
            maxLength=64,
        ),
    ] = None
    no_provision: Annotated[bool, says("Run no hooks of the project in its workspace, now or later.")] = False
    labels: Annotated[Labels | None, says("What to note of it: texts by name.  They mean nothing to the server.")] = (
        None
    )
    ttl: Annotated[
        float | None,
        says(
            "Seconds after which it is deleted with all that is in it, whatever runs there; absent: it is kept.",
            exclusiveMinimum=0,
            maximum=MAX_TTL,
        ),
    ] = None
    ttl_action: Annotated[
        TtlAction | None,
        says("What to do then in place of that: `stop` it, or `suspend` it.  It has no end afterwards."),
    ] = None
    idle_suspend: Annotated[
        float | None,
        says(
            "Seconds after which it is suspended when nobody has used it and it was not busy; 0: never.",
            minimum=0,
            maximum=MAX_IDLE,
        ),
    ] = None
    restart: Annotated[
        Restart | None,
        says(
            "`always`: start it again when its VM has ended or its host was down, unless somebody has stopped it or it "
            "has powered itself off."
        ),
    ] = None
    env: Annotated[
        Variables | None,
        says(
            "Environment variables of all its commands and logins, for as long as it lives; 128 KiB in all.  They win "
            "over those of its image and of the server, and one that a command is given wins over them.",
            secret=True,
        ),
    ] = None
    egress: Annotated[
        list[str] | None,
        says("Names of the egress profiles that rule what it reaches; an empty list: nothing."),
    ] = None
    ports: Annotated[
        list[PortText] | None,
        says("Ports of the host that lead into it, for as long as it runs.  Needs the right `admin`."),
    ] = None
    host_ports: Annotated[
        list[HostPortText] | None,
        says("Ports of the host's loopback that it reaches as `host.shed.internal`.  Needs the right `admin`."),
    ] = None
    secrets: Annotated[
        list[str] | None,
        says("Names of the secrets that the relay is to put into its requests.  Needs the right `admin`."),
    ] = None
    ssh_agent: AgentHosts = None
    network: Annotated[
        NetworkKind | None,
        says(
            "`nic`: all public addresses by TCP, UDP and ICMP, and no rule is asked.  Needs the right `admin`, and a "
            "server that allows it."
        ),
    ] = None
    timeout: Annotated[
        float | None,
        says("Seconds from the VM's start to ready, after which all is undone.", exclusiveMinimum=0, maximum=MAX_WAIT),
    ] = None
    attached: Annotated[
        bool,
        says(
            "Delete it as soon as the client of this request has left, also one that was killed; before it is ready, "
            "undo it.  The answer is `text/event-stream`; it goes on after `complete`, and ends when the client ends "
            "its half of the connection and all is gone."
        ),
    ] = False
    cold: Annotated[bool, says(COLD)] = False
    force: Annotated[bool, says(FORCE)] = False
    trust_kernel: Annotated[
        bool,
        says("Trust the kernel and the initrd of the image from now on.  Needs the right `admin`."),
    ] = False


class UpdateShed(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is to change of a shed.  What is absent stays."""

    cpus: Annotated[int | None, says("Number of processors, from the next start on.", minimum=1, maximum=MAX_CPUS)] = (
        None
    )
    memory_mb: Annotated[
        int | None, says("Memory in MiB, from the next start on.", minimum=MIN_MEMORY_MB, maximum=MAX_MEMORY_MB)
    ] = None
    upper_size_bytes: Annotated[
        int | None,
        says("Size of its writable layer, at once; not less than it has.", minimum=MIN_UPPER, maximum=MAX_UPPER),
    ] = None
    ttl: Annotated[
        float | None,
        says("Seconds from now after which it is deleted; 0: it is kept.", minimum=0, maximum=MAX_TTL),
    ] = None
    ttl_action: Annotated[TtlAction | None, says("As for a new one.")] = None
    idle_suspend: Annotated[float | None, says("As for a new one.", minimum=0, maximum=MAX_IDLE)] = None
    restart: Annotated[Restart | None, says("As for a new one.")] = None
    env: Annotated[
        Variables | None, says("Environment variables that its commands have from now on, too.", secret=True)
    ] = None
    labels: Annotated[Labels | None, says("What to note of it, beside what was noted.")] = None
    no_labels: Annotated[
        Annotated[list[LabelKey], Meta(max_length=MAX_LABELS)] | None,
        says("Names of notes that it has no more.  One that is in `labels`, too, is set."),
    ] = None
    no_env: Annotated[
        Annotated[list[VariableName], Meta(max_length=MAX_VARIABLES)] | None,
        says("Names of those that they have no more.  One that is in `env`, too, is set."),
    ] = None
    ssh_agent: AgentHosts = None
