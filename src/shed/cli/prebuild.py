"""`shed prebuild create | list | build | rm`: sheds that are made ready ahead."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import argument, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client
from shed.cli.making import MAKING, asked
from shed.cli.output import done, shown, watched
from shed.terminal.output import age, emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

_PREBUILD = argument("PREBUILD", "name of the prebuild")

prebuild = Group(
    "prebuild",
    "Sheds that are made ready ahead, for others to go on from.",
    {
        "create": Entry("shed.cli.prebuild:create", "make a shed ready by commands, and keep it"),
        "list": Entry("shed.cli.prebuild:list_prebuilds", "list prebuilds"),
        "ls": Entry("shed.cli.prebuild:list_prebuilds", "", "list"),
        "build": Entry("shed.cli.prebuild:build", "build a prebuild anew"),
        "rm": Entry("shed.cli.prebuild:remove", "remove prebuilds"),
    },
)


@command(
    "prebuild create",
    argument("PREBUILD", "its name: lower-case letters, digits and '-', at most 63"),
    *MAKING,
    option("--run", "COMMAND", "what makes it ready, run by sh -ec; can be repeated, and runs in order", repeat=True),
    option("--limit", "TIME", "time for all commands together (default: 1h)", convert=values.duration),
    option("--every", "TIME", "build it anew after this time, again and again: 12h, 7d", convert=values.duration),
    examples=[
        "shed prebuild create web --image full --repo https://example.com/web.git --run 'npm ci'",
        "shed create try --prebuild web",
    ],
)
def create(args: Any, options: Options) -> int:
    """Make a shed ready by commands, and keep it as a snapshot with its memory.

    `shed create NAME --prebuild PREBUILD` goes on from it, with a name, host keys and machine id of its own and the
    same settings.  The first command that fails ends it.
    """
    with watched(options) as sink:
        made = client(options).create_prebuild(
            args.prebuild,
            args.run,
            limit=args.limit,
            every=args.every,
            on_event=sink,
            **asked(args, options),
        )
    _tell(made, options, "made")
    return 0


@command("prebuild build", _PREBUILD, examples=["shed prebuild build web"])
def build(args: Any, options: Options) -> int:
    """Build a prebuild anew, on what its image is now.  Until that is done the earlier one is used."""
    with watched(options) as sink:
        made = client(options).build_prebuild(args.prebuild, on_event=sink)
    _tell(made, options, "built")
    return 0


def _tell(made: dict[str, Any], options: Options, verb: str) -> None:
    name = str(made.get("name"))
    done(options, "prebuild", name, f"{verb} {name}", **{key: made[key] for key in made if key != "name"})
    if not options.json:
        note(f"  go on from it: shed create NAME --prebuild {name}")


@command("prebuild list")
def list_prebuilds(args: Any, options: Options) -> int:
    """List the prebuilds of the server."""
    from shed.sizes import format_size

    with shown(options) as sink:
        found = client(options).prebuilds(on_event=sink)
    if options.json:
        emit(found)
        return 0
    if not found:
        note("no prebuilds yet; make one: shed prebuild create NAME --run COMMAND")
        return 0
    rows = [
        [
            str(one.get("name")),
            str(one.get("status")),
            str(one.get("image") or "-"),
            format_size(int(one.get("disk_bytes") or 0)),
            age(str(one.get("built_at"))) if one.get("built_at") else "never",
        ]
        for one in found
    ]
    say(table(["PREBUILD", "STATUS", "IMAGE", "SIZE", "BUILT"], rows), end="")
    for one in found:
        if one.get("failed"):
            note(f"{one.get('name')}: its last build has failed: {one['failed']}")
    return 0


@command("prebuild rm", argument("PREBUILD", "name of the prebuild", count="+"))
def remove(args: Any, options: Options) -> int:
    """Remove prebuilds and their snapshots.  Sheds that were made from them keep what they have."""
    server = client(options)
    for name in args.prebuild:
        server.remove_prebuild(name)
        done(options, "prebuild", name, f"removed {name}")
    return 0
