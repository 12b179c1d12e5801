"""`shed token create | list | revoke`: who may use a server's TCP port."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import argument, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client
from shed.cli.output import done
from shed.terminal.output import age, emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

tokens = Group(
    "token",
    "Who may use the server's TCP port (http_port), and for what.  The Unix socket and ssh:// need no token.",
    {
        "create": Entry("shed.cli.token:create", "create a token and print it"),
        "list": Entry("shed.cli.token:list_tokens", "list the tokens"),
        "ls": Entry("shed.cli.token:list_tokens", "", "list"),
        "revoke": Entry("shed.cli.token:revoke", "make a token invalid"),
        "rm": Entry("shed.cli.token:revoke", "", "revoke"),
    },
)


@command(
    "token create",
    argument("NAME", "name of the token in the list and in the audit log"),
    option(
        "--right",
        "RIGHT",
        "read: look at everything; use: create, run and delete sheds (default); admin: also host folders, images, "
        "tokens, and the server",
        choices=("read", "use", "admin"),
        default="use",
    ),
    option("--expires", "TIME", "how long it is valid, for example 24h (default: forever)", convert=values.duration),
    examples=["shed token create ci > ci.token", "shed token create dashboard --right read --expires 720h"],
)
def create(args: Any, options: Options) -> int:
    """Create a token and print it, alone on standard output.

    It cannot be shown again: the server keeps only its hash.
    """
    token, secret = client(options).create_token(args.name, right=args.right, expires_in=args.expires)
    if options.json:
        emit({**token, "token": secret})
        return 0
    note(f"the token {args.name!r}, with the right {args.right!r}:")
    say(secret)
    return 0


@command("token list")
def list_tokens(args: Any, options: Options) -> int:
    """List the tokens of the server, without their secrets."""
    found = client(options).tokens()
    if options.json:
        emit(found)
        return 0
    rows = [
        [str(t.get("name")), str(t.get("right")), age(str(t.get("created_at"))), str(t.get("expires_at") or "never")]
        for t in found
    ]
    say(table(["NAME", "RIGHT", "CREATED", "EXPIRES"], rows), end="")
    return 0


@command("token revoke", argument("NAME", "name of the token"))
def revoke(args: Any, options: Options) -> int:
    """Make a token invalid.  Connections that were opened with it are closed."""
    client(options).revoke_token(args.name)
    done(options, "revoke", args.name, f"revoked {args.name}")
    return 0
