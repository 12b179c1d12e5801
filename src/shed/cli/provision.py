"""`shed provision`: the hooks of the project in a shed."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.cli.output import watched
from shed.cli.sheds import finished, set_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options


@command(
    "provision",
    SHED,
    flag("--again", "run the hook install, too, when it has succeeded before"),
    option("--limit", "TIME", "time for each hook (default: 1h)", convert=values.duration),
    examples=["shed provision dev", "shed provision -v dev --again"],
)
def provision(args: Any, options: Options) -> int:
    """Run the hooks of .shed/provision.yaml in a shed's workspace: install, unless it has succeeded, and startup.

    With -v their output is shown.  The exit code is 3 when one fails.
    """
    with watched(options) as sink:
        shed = client_of(args.name, options).provision(args.name, again=args.again, limit=args.limit, on_event=sink)
    finished(options, "provision", "provisioned", shed)
    return set_up(shed, options)
