"""`shed egress learn`: proposes the profile that would have been enough for what a shed does."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.errors import UsageError
from shed.terminal.output import emit, note, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.client.sync.api import Api
    from shed.egress.rules.learning import Learned
    from shed.egress.rules.policy import Profile

_KINDS = ["egress", "egress.connected"]
_LATE = 0.5
"""Seconds after the end in which decisions that were made before it arrive."""


@command(
    "egress learn",
    SHED,
    argument("COMMAND", "what to run in the shed; without it, whatever runs there is watched", count="*"),
    option(
        "--for",
        "TIME",
        "how long to watch without a command (default: until ctrl-C)",
        convert=values.duration,
        key="seconds",
    ),
    option("--profile", "PROFILE", "the profile to extend; a diff to it is shown"),
    flag("--save", "keep the result as PROFILE; otherwise nothing is changed"),
    examples=["shed egress learn dev -- npm ci", "shed egress learn dev --for 10m --profile work --save"],
)
def learn(args: Any, options: Options) -> int:
    """Propose the smallest egress profile that would have been enough for a command, or for a time.

    The rules of the shed hold meanwhile; what they refuse counts as wanted.  Connections that were open before are not
    seen.  The profile goes to standard output, what the command prints to standard error, and its exit code is that of
    the command.
    """
    if args.save and not args.profile:
        raise UsageError("--save needs a name for the profile", hint="add --profile NAME")
    server = client_of(args.name, options)
    base = _base(server, args.profile)
    learned, code = _watch(server, args, options)
    _show(learned, base, server, args, options)
    return code


def _base(server: Api, name: str | None) -> Profile:
    """Return the profile to extend; one without rules when there is none of that name."""
    from shed.egress.rules.policy import Profile

    for known in server.egress_profiles()["profiles"] if name else ():
        if known.get("name") == name:
            return Profile.parse(known["name"], {"rules": known.get("rules") or [], "log": known.get("log", "refused")})
    return Profile.parse(name or "learned", {"rules": []})


def _watch(server: Api, args: Any, options: Options) -> tuple[Learned, int]:
    """Return what the shed connects to while a command runs or time passes, and the command's exit code."""
    import threading
    import time

    from shed.egress.rules.learning import Learned

    learned, missed = Learned(), 0
    following = server.follow_events(shed=args.name, kinds=_KINDS)
    next(following)

    def read() -> None:
        nonlocal missed
        from shed.errors import ShedError

        try:
            for event in following:
                missed += int(event.get("count") or 0)
                learned.add(event.get("decision") or {})
        except ShedError as error:
            note(f"what {args.name} connects to is not seen any more: {error}")

    threading.Thread(target=read, daemon=True).start()
    code = 0
    try:
        if args.command:
            code = _run(args, options)
        else:
            note(f"watching {args.name}; ctrl-C ends it")
            threading.Event().wait(args.seconds)
    except KeyboardInterrupt:
        if args.command:
            raise
    time.sleep(_LATE)
    if missed:
        note(f"{missed} decisions were not seen: there were too many of them; learn again")
    return learned, code


def _run(args: Any, options: Options) -> int:
    """Run the command with its output on standard error; return its exit code."""
    import os

    from shed.cli.exec import exec_command

    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        return exec_command([args.name, "--", *args.command], options)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _show(learned: Learned, base: Profile, server: Api, args: Any, options: Options) -> None:
    from shed.egress.rules.learning import as_diff, as_yaml, extended
    from shed.egress.rules.suffixes import Suffixes

    suffixes = Suffixes()
    rules = learned.missing(base, suffixes)
    document = extended(base, rules)
    if options.json:
        emit({"name": base.name, **document})
    elif base.rules:
        say(as_diff(base, rules), end="")
    else:
        say(as_yaml(base, rules), end="")
    where = f" in {base.name}" if base.rules else ""
    note(f"{learned.count} hosts and ports were seen; {len(rules)} rules are missing{where}")
    if not suffixes.known:
        note("names are not taken together as *.name: that needs the package publicsuffix on this machine")
    if args.save:
        server.set_egress_profile(base.name, document)
        note(f"set {base.name}")
