"""`shed mcp`: sheds for an agent, by the Model Context Protocol."""

from __future__ import annotations

import os

from shed.cli import values
from shed.cli.arguments import flag, option
from shed.cli.command import command
from shed.cli.connection import client
from shed.errors import UnavailableError, UsageError
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.mcp.grant import Grant


@command(
    "mcp",
    option("--shed", "NAME", "shed that the agent may use, too; can be repeated", repeat=True, offers="sheds"),
    option(
        "--allow-image", "IMAGE", "image that it may choose, the first one by default; can be repeated", repeat=True
    ),
    option("--allow-prebuild", "NAME", "prebuild that it may go on from; can be repeated", repeat=True),
    option("--allow-profile", "PROFILE", "egress profile that it may choose; can be repeated", repeat=True),
    option(
        "--allow-repo", "URL", "repository, or beginning of its URL, that it may clone; can be repeated", repeat=True
    ),
    option("--local-dir", "DIR", "folder from which it may copy files, and to DIR/from-sheds", once=True),
    option("--most-sheds", "N", "sheds that it may have at one time (default: 4)", convert=values.count, default=4),
    option("--cpus", "N", "processors of all its sheds together (default: 8)", convert=values.count, default=8),
    option("--memory", "SIZE", "memory of all its sheds together (default: 8G)", convert=values.memory, default=8192),
    option(
        "--time", "TIME", "how long the session may last (default: 8h)", convert=values.duration, default=8 * 3600.0
    ),
    flag("--keep", "keep the sheds and checkpoints that it made when it ends"),
    examples=[
        "shed mcp",
        "shed mcp --shed dev --local-dir .",
        "shed mcp --allow-image full --allow-repo https://github.com/me/ --most-sheds 2",
    ],
)
def mcp(args: Any, options: Options) -> int:
    """Serve an agent by the Model Context Protocol, on standard input and output: an MCP client starts this.

    The agent gets sheds of its own, which are deleted at the end, and nothing else: no other shed, image or folder,
    unless an option names it.
    """
    if os.isatty(0):
        raise UsageError("an MCP client starts this, and talks to it", hint="see how: docs/reference/mcp.md")
    try:
        import mcp_types  # noqa: F401  the only part of it that is not in every installation
    except ImportError:
        raise UnavailableError(
            "this installation of shed lacks what speaks MCP", hint="pip install 'shed[mcp]'"
        ) from None
    import asyncio

    from shed.mcp.stdio import serve

    left = asyncio.run(serve(client(options).address, _grant(args)))
    for problem in left:
        note(problem)
    return int(bool(left))


def _grant(args: Any) -> Grant:
    from pathlib import Path

    from shed.mcp.grant import Grant
    from shed.names import check_shed_name

    folder = None if args.local_dir is None else Path(args.local_dir).absolute()
    return Grant(
        sheds=tuple(check_shed_name(name) for name in args.shed),
        images=tuple(args.allow_image),
        prebuilds=tuple(args.allow_prebuild),
        profiles=tuple(args.allow_profile),
        repos=tuple(args.allow_repo),
        folder=folder,
        most_sheds=args.most_sheds,
        cpus=args.cpus,
        memory_mb=args.memory,
        seconds=args.time,
        keep=args.keep,
    )
