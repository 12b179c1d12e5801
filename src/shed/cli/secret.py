"""`shed secret set | list | rm | give | take`: values that sheds use and never see."""

from __future__ import annotations

import sys

from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client, client_of
from shed.cli.output import done, waiting
from shed.errors import UsageError
from shed.terminal.output import emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

_SECRETS = argument("SECRET", "name of a secret", count="+")
_MOST = 65536
"""Bytes of standard input that are read: more than a value may have."""

secret = Group(
    "secret",
    "Keys and tokens that sheds use and never see: a shed has a placeholder, and the relay puts the value into "
    "requests to the hosts that it is for.",
    {
        "set": Entry("shed.cli.secret:set_secret", "keep a secret, or give one another value"),
        "list": Entry("shed.cli.secret:list_secrets", "list the secrets, without their values"),
        "ls": Entry("shed.cli.secret:list_secrets", "", "list"),
        "rm": Entry("shed.cli.secret:remove", "remove a secret"),
        "give": Entry("shed.cli.secret:give", "have a shed use secrets, at once"),
        "take": Entry("shed.cli.secret:take", "have a shed use secrets no more, at once"),
    },
)


@command(
    "secret set",
    argument("NAME", "name of the secret: lower-case letters, digits and '-'"),
    option("--host", "HOST", "host that it is for, or *.HOST for subdomains; can be repeated", repeat=True),
    option("--header", "TEXT", "header that has the value in each request: 'Authorization: Bearer {}'"),
    option("--method", "METHOD", "method of requests that may be made there; can be repeated", repeat=True),
    option("--path", "PATH", "path of these requests, such as '/repos/me/*'; can be repeated", repeat=True),
    option("--variable", "NAME", "environment variable in sheds (default: its name in upper case)"),
    option(
        "--from-file", "PATH", "take the value from a file of the server's machine, each time it is needed", offers=""
    ),
    option("--from-env", "NAME", "take it from an environment variable of the server"),
    option("--from-command", "COMMAND", "take it from what a command prints that the server runs"),
    examples=[
        "shed secret set openai-api-key --host api.openai.com < key",
        "shed secret set github-token --host api.github.com --method GET --from-command 'gh auth token'",
    ],
)
def set_secret(args: Any, options: Options) -> int:
    """Keep a secret.  Without a source, its value is read from standard input, or asked for on a terminal.

    Sheds that have it use the new value at once.  Without --host, only the value of an existing secret is changed.
    """
    sources = {"from_file": args.from_file, "from_env": args.from_env, "from_command": args.from_command}
    given = {key: text for key, text in sources.items() if text is not None}
    if not given:
        given = {"value": _value(args.name)}
    with waiting(options, f"setting {args.name}"):
        shown = client(options).set_secret(
            args.name,
            hosts=args.host or None,
            variable=args.variable,
            header=args.header,
            methods=args.method or None,
            paths=args.path or None,
            **given,
        )
    words = f"set {args.name}, which is {shown.get('variable')} in a shed"
    if not shown.get("sheds"):
        words += f"; give it to one: shed secret give SHED {args.name}"
    done(options, "secret", args.name, words)
    return 0


def _value(name: str) -> str:
    """Return the value that somebody types, without showing it, or that comes by standard input."""
    if sys.stdin.isatty():
        from getpass import getpass

        value = getpass(f"value of {name}: ")
    else:
        value = sys.stdin.buffer.read(_MOST).decode(errors="replace").removesuffix("\n").removesuffix("\r")
    if not value:
        raise UsageError(f"the value of {name} is empty", code="INVALID_SECRET", hint="give it on standard input")
    return value


@command("secret list")
def list_secrets(args: Any, options: Options) -> int:
    """List the secrets: what they are for, where their values come from, and which sheds have them."""
    with waiting(options, "asking the server"):
        found = client(options).secrets()
    if options.json:
        emit(found)
        return 0
    for warning in found.get("warnings") or []:
        note(f"warning: {warning}")
    rows = [
        [
            str(one.get("name")),
            ", ".join(one.get("hosts") or []),
            " ".join(filter(None, [",".join(one.get("methods") or []), " ".join(one.get("paths") or [])])) or "all",
            str(one.get("source")).replace("_", " "),
            ", ".join(one.get("sheds") or []) or "-",
        ]
        for one in found["secrets"]
    ]
    say(table(["NAME", "HOSTS", "REQUESTS", "VALUE", "SHEDS"], rows), end="")
    return 0


@command("secret rm", argument("NAME", "name of the secret"), flag("--force", "take it from the sheds that have it"))
def remove(args: Any, options: Options) -> int:
    """Remove a secret that no shed has."""
    with waiting(options, f"removing {args.name}"):
        client(options).remove_secret(args.name, force=args.force)
    done(options, "secret", args.name, f"removed {args.name}")
    return 0


@command("secret give", SHED, _SECRETS, examples=["shed secret give dev openai-api-key github-token"])
def give(args: Any, options: Options) -> int:
    """Have a shed use secrets.  Commands that start from now on have their placeholders in environment variables."""
    return _change(args.name, options, give=args.secret)


@command("secret take", SHED, _SECRETS)
def take(args: Any, options: Options) -> int:
    """Have a shed use secrets no more, at once: also commands that run cannot any longer."""
    return _change(args.name, options, take=args.secret)


def _change(name: str, options: Options, **change: list[str]) -> int:
    with waiting(options, f"changing what {name} uses"):
        changed = client_of(name, options).change_secrets(name, **change)
    for problem in changed.get("problems") or []:
        note(f"warning: {problem}")
    if changed.get("complete") is False:
        note("warning: the guest could not be told: commands there learn of it when the shed is restarted")
    words = f"{name} has {', '.join(changed.get('secrets') or []) or 'no secret'}"
    done(options, "secret", name, words, secrets=changed.get("secrets"))
    return 0
