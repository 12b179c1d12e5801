"""`shed workspace check`: the folder that a shed shares with its host."""

from __future__ import annotations

from shed.cli.arguments import SHED, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client_of
from shed.cli.output import waiting
from shed.terminal.output import emit, note, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

workspace = Group(
    "workspace",
    "The folders that sheds share with their host (create --local-dir and --mount).",
    {"check": Entry("shed.cli.workspace:check", "list what in a shed's folder could run on its host")},
)


@command(
    "workspace check",
    SHED,
    option("--mount", "DST", "look at the folder that the shed has at DST, in place of /workspace"),
    examples=["shed workspace check dev", "shed workspace check dev --mount /data"],
)
def check(args: Any, options: Options) -> int:
    """List what in the folder of a shed could run on its host by itself: when git, an editor or a shell opens it.

    Scripts and programs that you start yourself are not listed.  The shed need not run.  The exit code is 1 when
    something has changed since the shed was created.
    """
    with waiting(options, f"looking at the folder of {args.name}"):
        found = client_of(args.name, options).check_workspace(args.name, mount=args.mount)
    findings = found["findings"]
    new = [one for one in findings if one["changed"]]
    if options.json:
        emit(found)
        return int(bool(new))
    for one in findings:
        say(f"{'changed  ' if one['changed'] else 'as it was'}  {one['path']}: {one['why']}")
    counts = f"{len(findings)} that could run by itself, {len(new)} changed since {args.name} was created"
    note(f"{found['local_dir']}: {counts}")
    return int(bool(new))
