"""`shed token create | list | revoke`: who may use a server's TCP port."""

from __future__ import annotations

from shed.cli import parsing
from shed.cli.app import Command, dispatch
from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.client.client import items_of, object_of
from shed.terminal.output import age, emit, note, say, table

COMMANDS = {
    "create": Command("shed.cli.token:create", "make a token, and print it"),
    "list": Command("shed.cli.token:list_tokens", "list the tokens"),
    "ls": Command("shed.cli.token:list_tokens", "", "list"),
    "revoke": Command("shed.cli.token:revoke", "make a token invalid"),
    "rm": Command("shed.cli.token:revoke", "", "revoke"),
}


def main(words: list[str], options: Options) -> int:
    """Run a command about tokens."""
    about = "Who may use the server's TCP port (http_port), and for what.  The Unix socket and ssh:// need no token."
    return dispatch(COMMANDS, words, options, prefix="token ", about=about)


def create(words: list[str], options: Options) -> int:
    """Make a token."""
    parser = Parser(
        "token create",
        "Make a token and print it, alone on standard output.  It is shown this once: the server keeps its hash.",
        examples=["shed token create ci > ci.token", "shed token create dashboard --right read --expires 720h"],
    )
    parser.add_argument("name", metavar="NAME", help="what the token is called in the list and in the audit log")
    parser.add_argument(
        "--right",
        choices=("read", "use", "admin"),
        default="use",
        help="read: see what there is; use: make, run and delete sheds (default); admin: also host folders, images, "
        "tokens, the server",
    )
    parser.add_argument(
        "--expires",
        metavar="TIME",
        type=parsing.duration,
        help="how long it is valid, for example 24h (default: for ever)",
    )
    args = parser.parse(words, options)
    token, secret = client(options).create_token(args.name, right=args.right, expires_in=args.expires)
    if options.json:
        emit({**token, "token": secret})
        return 0
    note(f"the token {args.name!r}, with the right {args.right!r}:")
    say(secret)
    return 0


def list_tokens(words: list[str], options: Options) -> int:
    """List the tokens, without their secrets."""
    Parser("token list", "List the tokens of the server, without their secrets.").parse(words, options)
    tokens = [object_of(item) for item in items_of(client(options).tokens(), "tokens")]
    if options.json:
        emit(tokens)
        return 0
    rows = [
        [str(t.get("name")), str(t.get("right")), age(str(t.get("created_at"))), str(t.get("expires_at") or "never")]
        for t in tokens
    ]
    say(table(["NAME", "RIGHT", "CREATED", "EXPIRES"], rows), end="")
    return 0


def revoke(words: list[str], options: Options) -> int:
    """Make a token invalid."""
    parser = Parser("token revoke", "Make a token invalid.  Connections that were opened with it end.")
    parser.add_argument("name", metavar="NAME")
    name = parser.parse(words, options).name
    client(options).revoke_token(name)
    done(options, "revoke", name, f"revoked {name}")
    return 0
