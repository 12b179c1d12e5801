"""`shed logs`."""

from __future__ import annotations

import sys

from shed.cli import values
from shed.cli.arguments import SHED, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.errors import UsageError
from shed.terminal.output import emit, note, passing_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

_RESTORED = "this machine was restored, not booted"
"""In the first line of the log of such a shed; its agent says so."""


@command(
    "logs",
    SHED,
    flag("-f, --follow", "go on with new output, also over restarts, until the shed is deleted"),
    option("-n, --tail", "N", "show the last N lines, and nothing before them", convert=values.number),
    examples=["shed logs dev", "shed logs dev -f -n 20"],
)
def logs(args: Any, options: Options) -> int:
    """Show the console output of a shed since its last start."""
    if args.follow and options.json:
        raise UsageError("--follow has no JSON output", hint="leave out --json, or --follow")
    if args.follow:
        sys.stdout.flush()
        show = passing_on(1)
        for data in client_of(args.name, options).follow_logs(args.name, tail=args.tail, output=1):
            show(data)
        return 0
    text = client_of(args.name, options).logs(args.name, tail=args.tail)
    if options.json:
        emit({"name": args.name, "console": text})
        return 0
    sys.stdout.flush()
    passing_on(1)(text.encode(errors="surrogateescape"))
    if _RESTORED in text.partition("\n")[0] or (not text and args.tail != 0):
        note(
            f"{args.name} was restored from a saved machine, whose boot is not in its log\n"
            f"  what its kernel says:        shed exec --user root {args.name} -- dmesg\n"
            f"  what its services say:       shed exec --user root {args.name} -- journalctl -b   (with systemd)"
        )
    return 0
