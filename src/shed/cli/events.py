"""`shed events`, `shed egress log`: what happens on a server, and what was decided about connections."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, flag, option
from shed.cli.command import command
from shed.cli.connection import client, client_of
from shed.terminal.output import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

_TAIL = 1000
"""Entries of the log that are shown."""
_FOLLOW = flag("-f, --follow", "go on with what comes, until ctrl-C")


@command(
    "events",
    _FOLLOW,
    option("--shed", "SHED", "only those of this shed", offers="sheds"),
    option(
        "--kind",
        "KIND",
        "only this kind, such as egress.refused, or a group: shed, egress; can be repeated",
        repeat=True,
    ),
    option("-n, --tail", "N", "only the last N", convert=values.number),
    examples=["shed events", "shed events -f --shed dev", "shed events -f --kind egress --json"],
)
def events(args: Any, options: Options) -> int:
    """Show what has happened on a server lately: sheds that came and went, rules, and what was refused to whom.

    With --json, each event is one line.
    """
    server = client(options) if args.shed is None else client_of(args.shed, options)
    wanted = {"shed": args.shed, "kinds": args.kind or None, "tail": args.tail}
    if not args.follow:
        for event in server.events(**wanted):
            _print_event(event, options)
        return 0
    for event in server.follow_events(**wanted, output=1):
        if event:
            _print_event(event, options)
    return 0


@command(
    "egress log",
    SHED,
    _FOLLOW,
    option("-n, --tail", "N", f"only the last N entries; the default is {_TAIL}", convert=values.number),
    examples=["shed egress log dev", "shed egress log dev -f -n 0"],
)
def egress_log(args: Any, options: Options) -> int:
    """Show the connections that a shed was refused, and those that a profile logs although they are allowed."""
    server = client_of(args.name, options)
    tail = _TAIL if args.tail is None else args.tail
    if not args.follow:
        for entry in server.egress_log(args.name, tail=tail):
            _print_decision(entry, options, flush=False)
        return 0
    shown: list[dict[str, Any]] = []
    for event in server.follow_events(shed=args.name, kinds=["egress", "shed.deleted"], output=1):
        decision = event.get("decision")
        if not event:  # from now on nothing is missed; what is in both is shown once
            shown = server.egress_log(args.name, tail=max(tail, _TAIL))
            for entry in shown[len(shown) - min(tail, len(shown)) :]:
                _print_decision(entry, options)
        elif event.get("kind") == "shed.deleted":
            return 0
        elif decision is None and event.get("count"):
            _print_decision({"time": event.get("time"), "left_out": event["count"]}, options)
        elif decision is not None and decision not in shown:
            _print_decision(decision, options)
    return 0


def _print_event(event: dict[str, Any], options: Options) -> None:
    if options.json:
        _line(event)
        return
    decision = event.get("decision")
    about = _about(decision) if decision else event.get("message") or ""
    count = f"{event['count']} are missing" if event.get("count") and not decision else ""
    words = (event.get("time"), f"{event.get('kind'):<16}", event.get("shed"), about, count)
    say("  ".join(str(word) for word in words if word), flush=True)


def _print_decision(entry: dict[str, Any], options: Options, *, flush: bool = True) -> None:
    if options.json:
        _line(entry)
        return
    verdict = "cut" if entry.get("cut") else "allowed" if entry.get("allowed") else "refused"
    if entry.get("left_out"):
        verdict = "missing"
    say(f"{entry.get('time')}  {verdict:<7}  {_about(entry)}", flush=flush)


def _about(decision: dict[str, Any]) -> str:
    if decision.get("left_out"):
        return f"{decision['left_out']} entries were not logged: too many in a minute, or the disk was full"
    words = [str(decision[key]) for key in ("method", "path", "status", "error") if decision.get(key)]
    if used := decision.get("secrets"):
        words.append(f"with {', '.join(used)}")
    if not decision.get("error") and decision.get("rule"):
        words.append(str(decision["rule"]))
    return f"{decision.get('name') or decision.get('address')}:{decision.get('port')}  {' '.join(words)}"


def _line(value: dict[str, Any]) -> None:
    """Print an object as one line: others follow."""
    import json

    say(json.dumps(value, separators=(",", ":")), flush=True)
