"""`shed sync`: files and folders of this machine, brought into a shed by rules."""

from __future__ import annotations

from pathlib import Path

from shed.cli.arguments import SHED, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.cli.output import done, shown
from shed.errors import ShedError, UsageError
from shed.terminal.output import note, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shed.cli.options import Options
    from shed.client.mirroring import Mirror, Plan
    from shed.client.sync_rules import Rule
    from shed.progress import Event

_OFTEN = 0.3
"""Seconds from one look at what is here to the next."""
_SHOWN = 20
"""Names of a kind that are told for each rule."""


@command(
    "sync",
    SHED,
    option("-p, --profile", "PROFILE", "the rules to follow (default: default)", default="default"),
    flag("--two-way", "bring here what changes in the shed, too"),
    option("--also", "PATH", "two ways, bring here this file, too, which programs run; can be repeated", repeat=True),
    flag("-f, --force", "send also what is newer in the shed; two ways, also empty a folder whose other is empty"),
    flag("-n, --dry-run", "only say what would be done"),
    flag("-w, --watch", "go on, and carry what changes, until ctrl-C"),
    option("-u, --user", "USER", "write in the shed as this user (default: the shed's own user)"),
    examples=["shed sync dev", "shed sync dev -p project --dry-run", "shed sync dev -p project --two-way --watch"],
)
def sync(args: Any, options: Options) -> int:
    """Bring files and folders of this machine into a shed, by the rules of ~/.shed/sync.yaml.

    One way, what differs is sent, and what was changed later in the shed is left as it is, and told.  Nothing
    of the shed is written here.  A rule has `from`, `to`, and if wanted `exclude` (patterns) and `delete: true`, which
    deletes what is not here.  What is not here any more is told, and passed over.

    With --two-way folders are kept alike: what changed on one side since the last time is carried to the other, what
    was deleted is deleted there.  Of what changed on both, this machine's stays, the shed's is kept beside it as
    NAME.conflict-SHED, and the exit code is 3 as long as that is there.  `.git` and its like are left
    alone, and what programs here run by themselves comes from a shed only when it is named.
    """
    from shed.cli.twoway import check, two_way
    from shed.client.mirroring import Mirror, running
    from shed.client.sync_rules import read_rules
    from shed.progress import PhaseEvent, WarningEvent

    if args.watch and args.dry_run:
        raise UsageError("--watch and --dry-run do not go together", hint="leave one out")
    check(args)
    rules = read_rules(Path("~/.shed/sync.yaml").expanduser(), args.profile)
    if args.two_way:
        return two_way(args, options, rules)
    seen = {rule: _look(rule) for rule in rules} if args.watch else {}
    with shown(options) as sink:
        run = running(
            client_of(args.name, options).address,
            args.name,
            user=args.user,
            warn=lambda text: sink(WarningEvent(text)),
            on_start=lambda: sink(PhaseEvent("start", f"Starting shed {args.name}...")),
        )
        plans = _bring(Mirror(run), rules, args, sink)
    _report(plans, args, options)
    if args.watch:
        _watch(Mirror(run), seen, args, options)
    return 0


def _bring(mirror: Mirror, rules: list[Rule], args: Any, sink: Callable[[Event], None]) -> list[Plan]:
    """Follow the rules; return what was done, or is to be."""
    from shed.client.mirroring import AbsentError
    from shed.progress import PhaseEvent, WarningEvent

    plans = []
    for rule in rules:
        sink(PhaseEvent("sync", f"{rule.source} to {args.name}:{rule.target}"))
        try:
            plan = mirror.plan(rule, force=args.force)
        except AbsentError as error:
            sink(WarningEvent(error.message))
            continue
        if not args.dry_run:
            mirror.carry_out(plan, lambda text: sink(WarningEvent(text)))
        plans.append(plan)
    return plans


def _look(rule: Rule) -> object:
    """Return what changes when something that a rule brings does."""
    from shed.client.mirroring import present

    try:
        return present(rule)
    except ShedError as error:
        return error.message


def _watch(mirror: Mirror, seen: dict[Rule, object], args: Any, options: Options) -> None:
    """Follow each rule again when what it is about is not what was `seen` any more, until ctrl-C."""
    import time

    from shed.progress import WarningEvent

    def show(event: Event) -> None:
        if isinstance(event, WarningEvent):
            note(f"warning: {event.message}")

    note("watching; ctrl-C ends it")
    while True:
        time.sleep(_OFTEN)
        now = {rule: _look(rule) for rule in seen}
        if changed := [rule for rule in seen if now[rule] != seen[rule]]:
            _report(_bring(mirror, changed, args, show), args, options)
            seen = now


def _report(plans: list[Plan], args: Any, options: Options) -> None:
    """Say what was done, or would be."""
    sent = sum(len(plan.send) for plan in plans)
    deleted = sum(len(plan.delete) for plan in plans)
    newer = sum(len(plan.newer) for plan in plans)
    if not options.json:
        for plan in plans:
            _tell(plan, dry=args.dry_run)
    would = "would send" if args.dry_run else "sent"
    options.json_lines = args.watch
    done(
        options,
        "sync",
        args.name,
        f"{would} {sent}, deleted {deleted}, left {newer} that are newer in {args.name}",
        profile=args.profile,
        dry_run=args.dry_run,
        rules=[
            {
                "from": str(plan.rule.source),
                "to": plan.rule.target,
                "sent": plan.send,
                "bytes": plan.bytes,
                "deleted": plan.delete,
                "newer": plan.newer,
                "left_out": plan.skipped,
            }
            for plan in plans
        ],
    )


def _tell(plan: Plan, *, dry: bool) -> None:
    from shed.text import visible

    kinds = [("newer", plan.newer), ("left out", plan.skipped)]
    if dry:
        kinds = [("send", plan.send), ("delete", plan.delete), *kinds]
    for what, names in kinds:
        for name in names[:_SHOWN]:
            (say if dry else note)(f"{what:<8}  {plan.rule.target}: {visible(name)}")
        if len(names) > _SHOWN:
            (say if dry else note)(f"{what:<8}  {plan.rule.target}: and {len(names) - _SHOWN} more")
