"""`shed system df | prune`: what everything takes up, and freeing some of it."""

from __future__ import annotations

from typing import Any

from shed.cli import parsing
from shed.cli.app import Command, dispatch
from shed.cli.connection import client
from shed.cli.everywhere import ask_all, conclude, down_rows
from shed.cli.options import Options
from shed.cli.output import confirm, done, watched
from shed.cli.parsing import Parser
from shed.client.client import Client
from shed.sizes import format_size
from shed.terminal.output import emit, note, say, table

COMMANDS = {
    "df": Command("shed.cli.system:usage", "show what takes up space"),
    "prune": Command("shed.cli.system:prune", "delete sheds stopped for long, images that nobody needs, and leftovers"),
}
_SCOPES = {
    "instances": "sheds that have been stopped for longer than --until",
    "images": "images that have no name and that nobody needs",
    "orphans": "what crashes have left",
    "logs": "console logs of failed starts, older than --until, and the beginning of long console logs of sheds",
}
_USAGE_TIMEOUT = 30.0
"""Seconds that all servers have together to look at their disks."""
_ROWS = {"instances": "shed", "images": "blob", "orphans": "orphan", "logs": "log", "consoles": "console log"}
"""What an answer has rows of; the last ones are cut, not deleted."""


def main(words: list[str], options: Options) -> int:
    """Run a command about a server's data."""
    return dispatch(COMMANDS, words, options, prefix="system ", about="What a server keeps on its disk.")


def usage(words: list[str], options: Options) -> int:
    """Show what takes up space."""
    parser = Parser(
        "system df",
        "Show what takes up space: SIZE as long as the files are, DISK what the file system has given them.  -v shows "
        "each thing.",
    )
    parser.add_argument(
        "--all", action="store_true", help="of all servers, which are asked at once; those that are down are named"
    )
    args = parser.parse(words, options)
    if not args.all:
        answer = client(options).usage()
        if options.json:
            emit(answer)
        else:
            _show(answer, options)
        return 0
    answers, down = ask_all(options, Client.usage, seconds=_USAGE_TIMEOUT)
    if options.json:
        emit({"servers": answers, "down": down_rows(down)})
    else:
        for name, answer in answers.items():
            say(f"{name}:")
            _show(answer, options)
    return conclude(options, answers, down)


def _show(answer: dict[str, Any], options: Options) -> None:
    rows = []
    for kind, about in answer["kinds"].items():
        rows.append([kind, str(about["count"]), format_size(about["size_bytes"]), format_size(about["disk_bytes"])])
        if options.verbose:
            rows += [[f"  {item['name']}", "", format_size(item["size_bytes"]), _disk(item)] for item in about["items"]]
    total = answer["total"]
    rows.append(["total", "", format_size(total["size_bytes"]), format_size(total["disk_bytes"])])
    say(table(["KIND", "COUNT", "SIZE", "DISK"], rows), end="")


def _disk(item: dict[str, Any]) -> str:
    unique = f" ({format_size(item['unique_bytes'])} not shared)" if "unique_bytes" in item else ""
    return f"{format_size(item['disk_bytes'])}{unique}"


def prune(words: list[str], options: Options) -> int:
    """Free space."""
    parser = Parser(
        "system prune",
        "Delete what is not needed.  Without a scope: --instances, --images and --orphans.  A running shed is never "
        "deleted.",
        examples=["shed system prune --dry-run", "shed system prune --images --logs --until 24h"],
    )
    for scope, about in _SCOPES.items():
        parser.add_argument(f"--{scope}", action="store_true", help=about)
    parser.add_argument(
        "--until",
        metavar="TIME",
        type=parsing.duration,
        default=72 * 3600.0,
        help="spare what is younger (default: 72h)",
    )
    parser.add_argument(
        "--log-tail-bytes", metavar="SIZE", type=parsing.size, help="what --logs leaves of a shed's log (default: 5M)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    args = parser.parse(words, options)
    scopes = [scope for scope in _SCOPES if getattr(args, scope)]
    if args.log_tail_bytes is not None and not args.logs:
        parser.error("--log-tail-bytes says what --logs leaves")
    server = client(options)
    if args.dry_run or not args.force:
        plan = server.clean(scopes, until=args.until, log_tail=args.log_tail_bytes, dry_run=True)
        if args.dry_run and options.json:
            emit(plan)
            return 0
        if not any(plan[scope] for scope in _ROWS):
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
    images = [] if options.verbose else [row for row in plan["images"] if row.get("kind") == "image"]
    rows = [
        [row.get("kind") or one, row.get("name") or row["digest"], format_size(row["size_bytes"])]
        for scope, one in _ROWS.items()
        for row in ((images or plan[scope]) if scope == "images" else plan[scope])
    ]
    say(table(["KIND", "NAME", "SIZE"], rows), end="")


def _sentence(plan: dict[str, Any], delete: str, cut: str) -> str:
    """Return what is done, as half a sentence that uses the two verbs; empty when it is nothing."""
    counts = {
        scope: f"{len(plan[scope])} {one}{'' if len(plan[scope]) == 1 else 's'}"
        for scope, one in _ROWS.items()
        if plan[scope]
    }
    consoles = counts.pop("consoles", None)
    parts = [f"{delete} {', '.join(counts.values())}"] if counts else []
    return ", ".join(parts + ([f"{cut} {consoles}"] if consoles else []))


def _finished(answer: dict[str, Any], options: Options) -> int:
    told = _sentence(answer, "deleted", "cut")
    said = f"{told}, freed {format_size(answer['size_bytes'])}" if told else "nothing to delete"
    done(options, "prune", "system", said, **answer)
    return 0
