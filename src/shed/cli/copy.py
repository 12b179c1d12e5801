"""`shed cp`."""

from __future__ import annotations

import os
import sys

from shed.cli.arguments import argument, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.cli.output import done, shown
from shed.errors import UsageError
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.client.copying import Place
    from shed.progress import Event


@command(
    "cp",
    argument("SRC", "PATH, NAME:PATH, or -", key="source", offers="places"),
    argument("DEST", "PATH, NAME:PATH, or -", key="target", offers="places"),
    flag("-a, --archive", "keep owners too; in a shed this is done as root"),
    flag("-L, --follow-link", "when SRC is a link, copy what it points to"),
    flag("-q, --quiet", "show no progress"),
    option("-u, --user", "USER", "read and write in the shed as this user (default: the shed's own user)"),
    examples=[
        "shed cp notes.txt dev:/tmp/",
        "shed cp dev:build/. ./out",
        "shed cp src dev:",
        "shed cp -u root dev:/etc - | tar t",
    ],
)
def cp(args: Any, options: Options) -> int:
    """Copy a file or folder between this machine and a shed, or between two sheds.

    A path in a shed is written NAME:PATH; without a leading / it is relative to the workspace.  If DEST is a folder,
    SRC is copied into it; SRC/. copies only its content.  If DEST does not exist, it becomes the copy.  With - as SRC
    or DEST, a tar stream is read from standard input or written to standard output.
    """
    from shed.client.copying import Copy, parse_place
    from shed.progress import PhaseEvent, WarningEvent

    source, target = parse_place(args.source), parse_place(args.target)
    if target.is_stream and sys.stdout.isatty():
        raise UsageError("a tar stream cannot be shown on a terminal", hint=f"shed cp {args.source} - | tar t")
    with shown(options) as sink:

        def show(event: Event) -> None:
            if isinstance(event, WarningEvent) or not args.quiet:
                sink(event)

        if sys.stderr.isatty():
            show(PhaseEvent("copy", f"copying {args.source} to {args.target}"))
        copied = Copy(
            lambda name: client_of(name, options).address,
            source,
            target,
            follow=args.follow_link,
            owners=args.archive,
            user=args.user,
            on_event=show,
            on_start=lambda name: show(PhaseEvent("start", f"Starting shed {name}...")),
        ).run()
    if not target.is_stream:
        _say(options, source, target, copied, quiet=args.quiet)
    return 0


def _say(options: Options, source: Place, target: Place, copied: int, *, quiet: bool) -> None:
    if options.json:
        done(options, "cp", target.name or source.name, "", source=source.path, target=target.path, bytes=copied)
    elif not quiet and os.isatty(2):
        from shed.sizes import format_size

        size = f", {format_size(copied)}" if copied else ""
        note(f"copied {source.path} to {f'{target.name}:' if target.name else ''}{target.path}{size}")
