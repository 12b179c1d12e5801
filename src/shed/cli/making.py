"""What a new shed can be asked to be, on the command line: `shed create`, `shed run` and `shed prebuild create`."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import flag, option
from shed.cli.connection import create_timeout, local_dir, mounts
from shed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.client.options import ShedOptions
    from shed.client.sync.api import Api

CHANGEABLE = (
    option("--cpus", "N", "number of virtual processors", convert=values.count),
    option("--memory", "SIZE", "memory: 4G, 512M; a bare number is megabytes", convert=values.memory),
    option("--upper-size", "SIZE", "size of the shed's writable layer, 1G to 100G", convert=values.size),
    option(
        "--ssh-agent",
        "HOST[,HOST]",
        "where the shed may use your SSH agent when you forward it: [USER@]HOST[:PORT]; * for any host, @git-signing "
        "for signatures of commits, none for nothing (default)",
        convert=values.names_or_none,
    ),
)
ENVIRONMENT = (
    option(
        "-e, --env",
        "KEY[=VALUE]",
        "environment variable of all commands and logins in the shed, without =VALUE as it is here; can be repeated",
        repeat=True,
    ),
    option(
        "--env-file",
        "FILE",
        "set the variables in this file: a KEY=VALUE or KEY on each line; # begins a comment; can be repeated",
        repeat=True,
    ),
)
LABEL = option("--label", "KEY=VALUE", "note to keep with the shed, for `list --filter`; can be repeated", repeat=True)
_IMAGE = "IMAGE", "name or digest of the image (default: the server's default image)"
MAKING = (
    option("-i, --image", *_IMAGE),
    option("--from-snapshot", "SNAPSHOT", "snapshot to begin with, on the image of that; see `shed snapshot`"),
    option(
        "-r, --repo",
        "URL[#REF]",
        "repository to clone into /workspace, in the shed: https://, ssh://, USER@HOST:PATH or OWNER/NAME, and a "
        "branch, tag or commit; its host is opened to the shed",
    ),
    option(
        "--depth", "N", "commits of the repository's history to fetch, 0 for all (default: 1)", convert=values.number
    ),
    flag("--no-provision", "run no hooks of .shed/provision.yaml in the workspace, now or at later starts"),
    *CHANGEABLE,
    LABEL,
    option(
        "--egress",
        "PROFILE[,PROFILE]",
        "profiles that rule what the shed may reach: offline, or packages,github (default: the server's)",
        convert=values.names,
    ),
    option(
        "--network",
        "KIND",
        "nic: all public addresses, by UDP and ICMP too, without rules or a log; refused unless the server allows it",
        choices=("relay", "nic"),
    ),
    option(
        "--host-port",
        "PORT[:SHEDPORT]",
        "port of the server's machine that the shed reaches as host.shed.internal; can be repeated",
        repeat=True,
    ),
    *ENVIRONMENT,
    option("--secret", "NAME", "secret that the shed may use; can be repeated; see `shed secret`", repeat=True),
    option("--timeout", "TIME", "give up after this time (default: 10m)", convert=values.duration),
    flag("--trust-kernel", "allow the kernel and the initrd that the image brings to boot on the server"),
)
"""Options of all new sheds."""
LOCAL_ENV = option(
    "--local-env",
    "KEY",
    "with --devcontainer: environment variable of yours that the project may read as ${localEnv:KEY}; can be repeated",
    repeat=True,
)
COLD = flag("--cold", "boot the VM, even where it could be restored from a saved one")
TTL_ACTION = option(
    "--ttl-action",
    "ACTION",
    "what to do when its time is up: delete it (default), stop it, or suspend it",
    choices=("delete", "stop", "suspend"),
)
IDLE_SUSPEND = option(
    "--idle-suspend",
    "TIME",
    "suspend it when nobody has used it for this time, and nothing in it was busy: 30m, 2h; none: never (default: the "
    "server's)",
    convert=values.duration_or_none,
)
RESTART = option(
    "--restart",
    "POLICY",
    "always: start it again when its VM has ended or the host was down, unless it was stopped (default: no)",
    choices=("no", "always"),
)
FORCE = flag("--force", "start it even when the host is short of memory")
CREATING = (
    *MAKING,
    option("--prebuild", "NAME", "prebuild to go on from, with its settings; see `shed prebuild`"),
    flag("--no-memory", "boot the disk of the snapshot or prebuild, though its memory is there, too"),
    option(
        "--local-dir",
        "DIR[:MODE]",
        "folder of this machine to mount at /workspace; MODE is rw (default), ro, or git-rw: read and write, including "
        "git's settings and hooks",
        once=True,
    ),
    option(
        "--mount",
        "SRC:DST[:MODE]",
        "folder SRC of this machine to mount at DST, too; MODE as above; can be repeated; see `shed mount`",
        repeat=True,
        offers="folders",
    ),
    option(
        "--devcontainer",
        "DIR",
        "project of this machine whose devcontainer.json says of what image the shed is made: it is built here, unless "
        "it is there already; without --repo and --local-dir, the project is mounted at /workspace",
        offers="folders",
        once=True,
    ),
    LOCAL_ENV,
    option(
        "-p, --publish",
        "[ADDRESS:][PORT:]SHEDPORT",
        "port of the server's machine that leads to a port of the shed; without PORT a free one; can be repeated",
        repeat=True,
    ),
    option(
        "--ttl",
        "TIME",
        "delete it after this time, whatever runs in it: 90m, 12h, 7d (default: never); see `update --ttl`",
        convert=values.duration,
    ),
    TTL_ACTION,
    IDLE_SUSPEND,
    RESTART,
    option(
        "--dotfiles",
        "URL[#REF]",
        "repository to clone into ~/.dotfiles and to install from there, as for --repo; none: not the one that your "
        "configuration names",
    ),
    option("--timezone", "ZONE", "its time zone, as Europe/Berlin; none: as its image has it (default: the server's)"),
    COLD,
    FORCE,
)
"""Options of a new shed that a name is given."""
RUNNING = (option("--image", *_IMAGE), *CREATING[1:])
"""The same for `shed run`, where -i is what it is for docker."""


def asked(args: Any, options: Options) -> ShedOptions:
    """Return what the options `MAKING` say.  Raises `UsageError`."""
    return {
        "image": args.image,
        "from_snapshot": args.from_snapshot,
        "repo": args.repo,
        "depth": args.depth,
        "no_provision": args.no_provision,
        "cpus": args.cpus,
        "memory_mb": args.memory,
        "upper_size_bytes": args.upper_size,
        "egress": args.egress,
        "host_ports": args.host_port or None,
        "secrets": args.secret or None,
        "ssh_agent": args.ssh_agent,
        "network": args.network,
        "env": variables(args),
        "labels": labels(args.label),
        "timeout": args.timeout or create_timeout(options),
        "trust_kernel": args.trust_kernel,
    }


def asked_to_create(args: Any, server: Api, options: Options) -> ShedOptions:
    """Return what the options `CREATING` say; a folder is one of `server`.  Raises `UsageError`."""
    project: ShedOptions = {}
    if args.devcontainer is not None:
        from shed.cli.project import project_of_shed

        project = project_of_shed(args, options)
    wanted = asked(args, options)
    env = {**(project.get("env") or {}), **(wanted["env"] or {})}
    folder, mode = (None, None) if args.local_dir is None else local_dir(args.local_dir, server)
    return {
        **wanted,
        "prebuild": args.prebuild,
        "disk_only": args.no_memory,
        "local_dir": folder,
        "local_dir_mode": mode,
        "mounts": mounts(args.mount, server),
        "ports": args.publish or None,
        "ttl": args.ttl,
        "ttl_action": args.ttl_action,
        "idle_suspend": args.idle_suspend,
        "dotfiles": None if args.dotfiles == "none" else args.dotfiles,
        "timezone": "" if args.timezone == "none" else args.timezone,
        "restart": args.restart,
        "cold": args.cold,
        "force": args.force,
        **project,
        "env": env or None,
    }


def variables(args: Any) -> dict[str, str] | None:
    """Return what the options `ENVIRONMENT` say; None for nothing.  Raises `UsageError`."""
    if not args.env and not args.env_file:
        return None
    from shed.cli.variables import given

    return given(args)


def labels(words: list[str]) -> dict[str, str] | None:
    """Return the labels that ``KEY=VALUE`` words name; None without any.  Raises `UsageError`."""
    for word in words:
        if "=" not in word:
            raise UsageError(f"--label {word}: a label is KEY=VALUE", hint=f"for example --label {word}=yes")
    return {key: value for key, _, value in (word.partition("=") for word in words)} or None
