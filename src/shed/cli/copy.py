"""`shed cp`."""

from __future__ import annotations

import os
import sys

from shed.cli.connection import client_of
from shed.cli.options import Options
from shed.cli.output import done, shown
from shed.cli.parsing import Parser
from shed.client.copying import Copy, Place, parse_place
from shed.errors import UsageError
from shed.progress import Event, PhaseEvent, WarningEvent
from shed.sizes import format_size
from shed.terminal.output import note


def cp(words: list[str], options: Options) -> int:
    """Copy files and folders between this machine and sheds."""
    parser = Parser(
        "cp",
        "Copy a file or a folder between this machine and a shed, or between two sheds.  A place in a shed is "
        "NAME:PATH; a path that does\n"
        "not begin with / is one in the workspace.  SRC goes into DEST when that is a folder, with SRC/. its content "
        "alone; a DEST that\n"
        "does not exist becomes the copy.  With - as SRC or DEST a tar stream comes from standard input, or goes to "
        "standard output.",
        examples=[
            "shed cp notes.txt dev:/tmp/",
            "shed cp dev:build/. ./out",
            "shed cp src dev:",
            "shed cp -u root dev:/etc - | tar t",
        ],
    )
    parser.add_argument("source", metavar="SRC", help="PATH, NAME:PATH, or -")
    parser.add_argument("target", metavar="DEST", help="PATH, NAME:PATH, or -")
    parser.add_argument("-a", "--archive", action="store_true", help="keep owners too; in a shed this is done by root")
    parser.add_argument("-L", "--follow-link", action="store_true", help="when SRC is a link, copy what it leads to")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "-u", "--user", metavar="USER", help="read and write in the shed as this user (default: the shed's own)"
    )
    args = parser.parse(words, options)
    source, target = parse_place(args.source), parse_place(args.target)
    if target.is_stream and sys.stdout.isatty():
        raise UsageError("a tar stream is not for a terminal", hint=f"shed cp {args.source} - | tar t")
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
        size = f", {format_size(copied)}" if copied else ""
        note(f"copied {source.path} to {f'{target.name}:' if target.name else ''}{target.path}{size}")
