"""`shed sync`: files and folders of this machine, brought into a shed by rules."""

from __future__ import annotations

from pathlib import Path

from shed.cli.arguments import SHED, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.cli.output import done, shown
from shed.terminal.output import note, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.client.mirroring import Plan

_SHOWN = 20
"""Names of a kind that are told for each rule."""


@command(
    "sync",
    SHED,
    option("-p, --profile", "PROFILE", "the rules to follow (default: default)", default="default"),
    flag("-f, --force", "send also what is newer in the shed"),
    flag("-n, --dry-run", "only say what would be done"),
    option("-u, --user", "USER", "write in the shed as this user (default: the shed's own user)"),
    examples=["shed sync dev", "shed sync dev -p project --dry-run"],
)
def sync(args: Any, options: Options) -> int:
    """Bring files and folders of this machine into a shed, by the rules of ~/.shed/sync.yaml.

    It goes one way: what differs is sent, and what was changed later in the shed is left as it is, and told.  Nothing
    of the shed is written here.  A rule has `from`, `to`, and if wanted `exclude` (patterns) and `delete: true`, which
    deletes what is not here.  What is not here any more is told, and passed over.
    """
    from shed.client.mirroring import Mirror, running
    from shed.client.sync_rules import read_rules
    from shed.errors import NotFoundError
    from shed.progress import PhaseEvent, WarningEvent

    rules = read_rules(Path("~/.shed/sync.yaml").expanduser(), args.profile)
    name, plans = args.name, []
    with shown(options) as sink:
        run = running(
            client_of(name, options).address,
            name,
            user=args.user,
            warn=lambda text: sink(WarningEvent(text)),
            on_start=lambda: sink(PhaseEvent("start", f"Starting shed {name}...")),
        )
        mirror = Mirror(run)
        for rule in rules:
            sink(PhaseEvent("sync", f"{rule.source} to {name}:{rule.target}"))
            try:
                plan = mirror.plan(rule, force=args.force)
            except NotFoundError as error:
                sink(WarningEvent(error.message))
                continue
            if not args.dry_run:
                mirror.carry_out(plan, lambda text: sink(WarningEvent(text)))
            plans.append(plan)
    sent = sum(len(plan.send) for plan in plans)
    deleted = sum(len(plan.delete) for plan in plans)
    newer = sum(len(plan.newer) for plan in plans)
    if not options.json:
        for plan in plans:
            _tell(plan, dry=args.dry_run)
    would = "would send" if args.dry_run else "sent"
    done(
        options,
        "sync",
        name,
        f"{would} {sent}, deleted {deleted}, left {newer} that are newer in {name}",
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
    return 0


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
