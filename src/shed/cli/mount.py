"""`shed mount ls | add | rm`: the folders of the host that a shed has."""

from __future__ import annotations

from shed.cli.arguments import SHED, argument, flag
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client_of, mounts
from shed.cli.output import waiting
from shed.terminal.output import emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

mount = Group(
    "mount",
    "The folders of the server's machine that a shed has, beside what create --local-dir and --mount gave it.",
    {
        "ls": Entry("shed.cli.mount:list_mounts", "list the folders of a shed"),
        "list": Entry("shed.cli.mount:list_mounts", "", "ls"),
        "add": Entry("shed.cli.mount:add", "give a shed more folders"),
        "rm": Entry("shed.cli.mount:remove", "take folders from a shed"),
    },
)


@command("mount ls", SHED, examples=["shed mount ls dev"])
def list_mounts(args: Any, options: Options) -> int:
    """List the folders of the server's machine that a shed has."""
    with waiting(options, f"asking the server about {args.name}"):
        found = client_of(args.name, options).shed_mounts(args.name)
    return _show(args.name, found, options)


@command(
    "mount add",
    SHED,
    argument(
        "SRC:DST[:MODE]",
        "folder SRC of this machine, to mount at DST; MODE is rw (default), ro or git-rw",
        count="+",
        key="folders",
    ),
    examples=["shed mount add dev ~/data:/data:ro", "shed mount add dev ~/notes:/notes ~/models:/models:ro"],
)
def add(args: Any, options: Options) -> int:
    """Give a shed more folders of this machine, also one that runs, if it was started with --mount or --local-dir DIR.

    The modes are those of create --local-dir.  A folder that is, holds, or is in one that the shed has already is
    refused.
    """
    server = client_of(args.name, options)
    with waiting(options, f"changing the folders of {args.name}"):
        found = server.change_mounts(args.name, add=mounts(args.folders, server))
    return _show(args.name, found, options)


@command(
    "mount rm",
    SHED,
    argument("DST", "where the shed has the folder", count="+", key="targets"),
    flag("--force", "also when programs in the shed use it: what they have open there is of no use then"),
    examples=["shed mount rm dev /data"],
)
def remove(args: Any, options: Options) -> int:
    """Take folders from a shed, also from one that runs.  What is in them stays as it is.

    When this returns, the shed has no access to them, whatever it does.
    """
    with waiting(options, f"changing the folders of {args.name}"):
        found = client_of(args.name, options).change_mounts(args.name, remove=args.targets, force=args.force)
    return _show(args.name, found, options)


def _show(name: str, found: dict[str, Any], options: Options) -> int:
    for warning in found.get("warnings") or []:
        note(f"warning: {warning}")
    if options.json:
        emit(found)
    elif found["mounts"]:
        rows = [[one["target"], one["source"], one["mode"]] for one in found["mounts"]]
        say(table(["IN THE SHED", "FOLDER", "MODE"], rows), end="")
    else:
        note(f"{name} has no folders of its host")
    return 0
