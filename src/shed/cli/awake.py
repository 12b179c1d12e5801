"""`shed keep-awake`."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.cli.output import done
from shed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options


@command(
    "keep-awake",
    SHED,
    option("--for", "TIME", "for how long: 30m, 2h; 24h at most (default: 1h)", key="time", convert=values.duration),
    option("--reason", "TEXT", "what for; `shed inspect` shows it"),
    flag("--release", "keep it awake no more, whoever asked for that"),
    examples=["shed keep-awake dev --for 2h --reason 'waits for a review'", "shed keep-awake dev --release"],
)
def keep_awake(args: Any, options: Options) -> int:
    """Have a shed not be suspended for being idle, for some time.  A suspended one goes on.

    `shed suspend`, and the end of its time (--ttl), count all the same.
    """
    if args.release and (args.time is not None or args.reason is not None):
        raise UsageError("--release goes without --for and --reason", hint="see: shed keep-awake --help")
    server = client_of(args.name, options)
    if args.release:
        gone = server.release_awake(args.name)
        done(options, "release", args.name, f"{args.name} is kept awake no more", leases=gone)
        return 0
    lease = server.keep_awake(args.name, seconds=args.time or 3600.0, reason=args.reason or "")
    done(options, "keep-awake", args.name, f"{args.name} is kept awake until {lease.get('until')}", lease=lease)
    return 0
