"""What a new shed can be asked to be, on the command line: `shed create` and `shed prebuild create`."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import flag, option
from shed.cli.connection import create_timeout
from shed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.client.options import ShedOptions

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
MAKING = (
    option("-i, --image", "IMAGE", "name or digest of the image (default: the server's default image)"),
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
    *CHANGEABLE,
    option("--label", "KEY=VALUE", "note to keep with the shed, for `list --json`; can be repeated", repeat=True),
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
    option("--secret", "NAME", "secret that the shed may use; can be repeated; see `shed secret`", repeat=True),
    option("--timeout", "TIME", "give up after this time (default: 10m)", convert=values.duration),
    flag("--trust-kernel", "allow the kernel and the initrd that the image brings to boot on the server"),
)
"""Options of all new sheds."""


def asked(args: Any, options: Options) -> ShedOptions:
    """Return what the options `MAKING` say.  Raises `UsageError`."""
    env = None
    if args.env or args.env_file:
        from shed.cli.variables import given

        env = given(args)
    return {
        "image": args.image,
        "from_snapshot": args.from_snapshot,
        "repo": args.repo,
        "depth": args.depth,
        "cpus": args.cpus,
        "memory_mb": args.memory,
        "upper_size_bytes": args.upper_size,
        "egress": args.egress,
        "host_ports": args.host_port or None,
        "secrets": args.secret or None,
        "ssh_agent": args.ssh_agent,
        "network": args.network,
        "env": env,
        "labels": _labels(args.label),
        "timeout": args.timeout or create_timeout(options),
        "trust_kernel": args.trust_kernel,
    }


def _labels(words: list[str]) -> dict[str, str] | None:
    """Return the labels that ``KEY=VALUE`` words name; None without any.  Raises `UsageError`."""
    for word in words:
        if "=" not in word:
            raise UsageError(f"--label {word}: a label is KEY=VALUE", hint=f"for example --label {word}=yes")
    return {key: value for key, _, value in (word.partition("=") for word in words)} or None
