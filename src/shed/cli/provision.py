"""`shed provision`: the hooks of the project in a shed."""

from __future__ import annotations

from contextlib import ExitStack

from shed.cli import values
from shed.cli.agent import forwarded
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
    flag("-A, --forward-agent", "clone its repository with the keys of your SSH agent, where --ssh-agent allows that"),
    option("--limit", "TIME", "time for each hook (default: 1h)", convert=values.duration),
    examples=["shed provision dev", "shed provision -v dev --again", "shed provision dev -A"],
)
def provision(args: Any, options: Options) -> int:
    """Run the hooks of .shed/provision.yaml in a shed's workspace: install, unless it has succeeded, and startup.

    A shed whose repository could not be cloned is given it first.

    With -v their output is shown.  The exit code is 3 when one fails.
    """
    server = client_of(args.name, options)
    with ExitStack() as stack:
        agent = stack.enter_context(forwarded(server, args.name, options)) if args.forward_agent else None
        sink = stack.enter_context(watched(options))
        shed = server.provision(args.name, again=args.again, limit=args.limit, agent=agent, on_event=sink)
    finished(options, "provision", "provisioned", shed)
    return set_up(shed, options)
