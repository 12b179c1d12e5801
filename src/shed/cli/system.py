"""`shed system df | prune`: what everything takes up, and freeing some of it."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import flag, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import ask_all, client, down_rows, report_down
from shed.cli.output import confirm, done, shown, waiting, watched
from shed.errors import UsageError
from shed.terminal.output import emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

system = Group(
    "system",
    "What a server keeps on its disk.",
    {
        "df": Entry("shed.cli.system:usage", "show what takes up space"),
        "prune": Entry("shed.cli.system:prune", "delete long-stopped sheds, unneeded images, and leftovers"),
        "reset": Entry("shed.cli.reset:reset", "delete all sheds, images and other data of this machine's server"),
    },
)
_SCOPES = {
    "instances": "sheds that have been stopped for longer than --until",
    "snapshots": "snapshots that have been here for longer than --until",
    "images": "images that have no name and that nothing needs",
    "orphans": "files that crashes have left behind",
    "templates": "saved VMs that starts were not restored from for longer than --until; they are made again",
    "logs": "console logs of failed starts that are older than --until, and the beginning of long console logs",
}
_USAGE_TIMEOUT = 30.0
"""Seconds that all servers have together to look at their disks."""
_ROWS = {
    "instances": "shed",
    "snapshots": "snapshot",
    "images": "blob",
    "orphans": "orphan",
    "templates": "saved VM",
    "logs": "log",
    "consoles": "console log",
}
"""The lists in an answer, and what one item is called.  Console logs are cut, the others deleted."""


@command("system df", flag("--all", "ask all configured servers at once, and name those that are down"))
def usage(args: Any, options: Options) -> int:
    """Show what takes up space.  -v shows each item, and what of it is not shared with others.

    SIZE is the length of the files, DISK what they occupy in the file system.
    """
    if not args.all:
        server = client(options)
        with waiting(options, "looking at what takes up space"):
            answer = server.usage()
        if server.address.local:
            from shed.cli.caches import add_to

            add_to(answer)
        if options.json:
            emit(answer)
        else:
            _show(answer, options)
        return 0
    with waiting(options, "looking at what takes up space"):
        answers, down = ask_all(options, lambda server: server.usage(), seconds=_USAGE_TIMEOUT)
    if options.json:
        emit({"servers": answers, "down": down_rows(down)})
    else:
        for name, answer in answers.items():
            say(f"{name}:")
            _show(answer, options)
    report_down(options, down)
    return 0 if answers else 1


def _show(answer: dict[str, Any], options: Options) -> None:
    from shed.sizes import format_size

    rows = []
    for kind, about in answer["kinds"].items():
        rows.append([kind, str(about["count"]), format_size(about["size_bytes"]), format_size(about["disk_bytes"])])
        if options.verbose:
            rows += [[f"  {item['name']}", "", format_size(item["size_bytes"]), _disk(item)] for item in about["items"]]
    total = answer["total"]
    rows.append(["total", "", format_size(total["size_bytes"]), format_size(total["disk_bytes"])])
    say(table(["KIND", "COUNT", "SIZE", "DISK"], rows), end="")


def _disk(item: dict[str, Any]) -> str:
    from shed.sizes import format_size

    unique = f" ({format_size(item['unique_bytes'])} not shared)" if "unique_bytes" in item else ""
    return f"{format_size(item['disk_bytes'])}{unique}"


@command(
    "system prune",
    *(flag(f"--{scope}", about) for scope, about in _SCOPES.items()),
    option(
        "--until",
        "TIME",
        "keep what is younger than this (default: 72h)",
        default=72 * 3600.0,
        convert=values.duration,
    ),
    option("--log-tail-bytes", "SIZE", "how much of a console log --logs keeps (default: 5M)", convert=values.size),
    flag("--caches", "what was downloaded for images on this machine, and can be again; of no server"),
    flag("--dry-run", "only say what would be deleted"),
    flag("-f, --force", "do not ask for confirmation"),
    examples=["shed system prune --dry-run", "shed system prune --images --logs --until 24h"],
)
def prune(args: Any, options: Options) -> int:
    """Delete what is not needed.  A running shed is never deleted.

    Without any of these scopes, --instances, --images, --orphans and --templates are meant.
    """
    from shed.sizes import format_size

    scopes = [scope for scope in _SCOPES if getattr(args, scope)]
    if args.log_tail_bytes is not None and not args.logs:
        raise UsageError("--log-tail-bytes goes with --logs", hint="add --logs, or leave it out")
    if args.caches:
        from shed.cli.caches import prune as prune_caches

        options.json_lines = bool(scopes)
        code = prune_caches(args, options)
        if not scopes:
            return code
    server = client(options)
    if args.dry_run or not args.force:
        with shown(options) as sink:
            plan = server.clean(scopes, until=args.until, log_tail=args.log_tail_bytes, dry_run=True, on_event=sink)
        if args.dry_run and options.json:
            emit(plan)
            return 0
        if not any(plan.get(scope) for scope in _ROWS):
            return _finished(plan, options)
        if not options.json:
            _preview(plan, options)
        if args.dry_run:
            note(f"would free {format_size(plan['size_bytes'])}")
            return 0
        question = _sentence(plan, "delete", "cut")
        if not confirm(
            f"{question[0].upper()}{question[1:]} ({format_size(plan['size_bytes'])})?", options, force=False
        ):
            note("Cancelled.")
            return 0
    with watched(options, left="the server goes on; see: shed system df") as sink:
        answer = server.clean(scopes, until=args.until, log_tail=args.log_tail_bytes, on_event=sink)
    return _finished(answer, options)


def _preview(plan: dict[str, Any], options: Options) -> None:
    from shed.sizes import format_size

    images = [] if options.verbose else [row for row in plan["images"] if row.get("kind") == "image"]
    rows = [
        [row.get("kind") or one, row.get("name") or row["digest"], format_size(row["size_bytes"])]
        for scope, one in _ROWS.items()
        for row in ((images or plan[scope]) if scope == "images" else plan.get(scope, []))
    ]
    say(table(["KIND", "NAME", "SIZE"], rows), end="")


def _sentence(plan: dict[str, Any], delete: str, cut: str) -> str:
    """Return what is done as half a sentence with the two verbs, for example ``deleted 2 sheds``; empty for nothing."""
    counts = {
        scope: f"{len(plan[scope])} {one}{'' if len(plan[scope]) == 1 else 's'}"
        for scope, one in _ROWS.items()
        if plan.get(scope)
    }
    consoles = counts.pop("consoles", None)
    parts = [f"{delete} {', '.join(counts.values())}"] if counts else []
    return ", ".join(parts + ([f"{cut} {consoles}"] if consoles else []))


def _finished(answer: dict[str, Any], options: Options) -> int:
    from shed.sizes import format_size

    told = _sentence(answer, "deleted", "cut")
    said = f"{told}, freed {format_size(answer['size_bytes'])}" if told else "nothing to delete"
    done(options, "prune", "system", said, **answer)
    return 0
