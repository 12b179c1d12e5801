"""`shed snapshot create | list | info | rm`, `shed rollback | reset`: what sheds were at one moment."""

from __future__ import annotations

from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client, client_of
from shed.cli.output import confirm, done, shown, watched
from shed.terminal.output import age, emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

_SNAPSHOT = argument("SNAPSHOT", "name of the snapshot")

snapshot = Group(
    "snapshot",
    "What sheds were at one moment, for others to begin with.",
    {
        "create": Entry("shed.cli.snapshot:create", "keep what a shed is now"),
        "list": Entry("shed.cli.snapshot:list_snapshots", "list snapshots"),
        "ls": Entry("shed.cli.snapshot:list_snapshots", "", "list"),
        "info": Entry("shed.cli.snapshot:info", "show all about a snapshot"),
        "rm": Entry("shed.cli.snapshot:remove", "remove snapshots"),
        "push": Entry("shed.cli.snapshot_transfer:push", "push a snapshot to a registry"),
        "pull": Entry("shed.cli.snapshot_transfer:pull", "pull a snapshot from a registry"),
        "save": Entry("shed.cli.snapshot_transfer:save", "write a snapshot to a file"),
        "load": Entry("shed.cli.snapshot_transfer:load", "read a snapshot from a file"),
    },
)


@command(
    "snapshot create",
    SHED,
    argument("SNAPSHOT", "its name: letters, digits, '.', '_' and '-' (default: the shed's and a number)", count="?"),
    option("--comment", "TEXT", "what to note of it"),
    flag("--no-memory", "keep the disk alone of a shed that runs"),
    examples=["shed snapshot create dev before-upgrade", "shed create try --from-snapshot before-upgrade"],
)
def create(args: Any, options: Options) -> int:
    """Keep what a shed has written and, of one that runs, what is in its memory.  It runs on.

    A shed that is made from it, by `shed create NAME --from-snapshot SNAPSHOT`, has the same files and image, and a
    name, host keys and machine id of its own.  With memory the processes go on there, too.
    """
    with watched(options, left="the server goes on; see: shed snapshot ls") as sink:
        made = client_of(args.name, options).create_snapshot(
            args.name, args.snapshot, comment=args.comment or "", disk_only=args.no_memory, on_event=sink
        )
    name = str(made.get("name"))
    done(options, "snapshot", name, f"made {name} of {args.name}", **{key: made[key] for key in made if key != "name"})
    return 0


@command("snapshot list")
def list_snapshots(args: Any, options: Options) -> int:
    """List the snapshots of the server."""
    from shed.sizes import format_size

    with shown(options) as sink:
        found = client(options).snapshots(on_event=sink)
    if options.json:
        emit(found)
        return 0
    if not found:
        note("no snapshots yet; make one: shed snapshot create SHED")
        return 0
    rows = [
        [
            str(one.get("name")),
            str(one.get("source_shed")),
            str(one.get("source_image")),
            format_size(int(one.get("disk_bytes") or 0)),
            age(str(one.get("created_at"))),
            str(one.get("comment") or "-"),
        ]
        for one in found
    ]
    say(table(["SNAPSHOT", "SHED", "IMAGE", "SIZE", "CREATED", "COMMENT"], rows), end="")
    return 0


@command("snapshot info", _SNAPSHOT)
def info(args: Any, options: Options) -> int:
    """Show all that the server knows about a snapshot."""
    found = client(options).snapshot(args.snapshot)
    if options.json:
        emit(found)
        return 0
    for key, value in found.items():
        shown_value = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        say(f"{key:<13} {shown_value or '-'}")
    return 0


@command(
    "rollback",
    SHED,
    argument("SNAPSHOT", "name of the snapshot (default: the last one that was made of the shed)", count="?"),
    flag("--discard", "do not keep what the shed was as a snapshot"),
    flag("--no-memory", "only its disk, though the snapshot has memory from which the shed could go on"),
    examples=["shed rollback dev", "shed rollback dev before-upgrade --discard"],
)
def rollback(args: Any, options: Options) -> int:
    """Have a shed go back to a snapshot.  What it was is kept as another one.

    With the memory of a snapshot, the shed goes on where its processes were then, whether it runs now or not.  Without,
    or with --no-memory, it must be stopped, and begins with the disk at its next start.
    """
    with watched(options) as sink:
        shed = client_of(args.name, options).rollback(
            args.name, args.snapshot, discard=args.discard, disk_only=args.no_memory, on_event=sink
        )
    then = "it runs" if shed.get("status") == "running" else f"start it: shed start {args.name}"
    done(options, "rollback", args.name, f"rolled {args.name} back; {then}", shed=shed)
    return 0


@command(
    "fork",
    SHED,
    argument("NEW", "name of the new shed; with --count above 1 theirs are this, a dash and a number"),
    option("--count", "N", "how many (default: 1)", convert=int),
    examples=["shed fork dev try", "shed fork dev idea --count 3"],
)
def fork(args: Any, options: Options) -> int:
    """Make sheds that go on from what a running one is now: its files, and the processes where they were.

    Each has a name, host keys, machine id and network of its own.  Connections to others are cut.  The shed itself
    runs on.
    """
    from shed.cli.sheds import update_ssh

    server = client_of(args.name, options)
    with watched(options) as sink:
        found = server.fork(args.name, args.new, count=args.count or 1, on_event=sink)
    made = [str(one["name"]) for one in found if one.get("shed")]
    for one in found:
        name = str(one["name"])
        if name in made:
            done(options, "fork", name, f"made {name}", shed=one["shed"])
        elif options.json:
            emit({"status": "error", "action": "fork", **one}, line=options.json_lines)
        else:
            hint = f"\nhint: {one['hint']}" if one.get("hint") else ""
            note(f"error: {name} was not made: {one.get('message')}{hint}")
    update_ssh(server, options, made=made)
    return 0 if len(made) == len(found) else 1


@command("reset", SHED, flag("-f, --force", "do not ask for confirmation"), examples=["shed reset dev"])
def reset(args: Any, options: Options) -> int:
    """Have a stopped shed begin anew, with its image alone.  What it has written is deleted."""
    server = client_of(args.name, options)
    if not confirm(f"Delete all that {args.name} has written?", options, force=args.force):
        note("Cancelled.")
        return 0
    with watched(options) as sink:
        shed = server.reset(args.name, on_event=sink)
    done(options, "reset", args.name, f"reset {args.name}; start it: shed start {args.name}", shed=shed)
    return 0


@command("snapshot rm", argument("SNAPSHOT", "name of the snapshot", count="+"))
def remove(args: Any, options: Options) -> int:
    """Remove snapshots.  Sheds that were made from them keep what they have."""
    server = client(options)
    for name in args.snapshot:
        server.remove_snapshot(name)
        done(options, "snapshot", name, f"removed {name}")
    return 0
