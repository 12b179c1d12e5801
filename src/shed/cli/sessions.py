"""`shed sessions`: the tmux sessions in sheds."""

from __future__ import annotations

import sys
from typing import Any

from shed.cli.app import Command
from shed.cli.connection import client, client_of
from shed.cli.options import Options, take_all
from shed.cli.output import done, shown
from shed.cli.parsing import Parser
from shed.client.config import load
from shed.client.locate import ask
from shed.client.transport import NotRunningError
from shed.errors import ShedError, UsageError
from shed.names import LOCAL
from shed.progress import WarningEvent
from shed.terminal.output import age, emit, note, say, table

COMMANDS = {"kill": Command("shed.cli.sessions:kill", "end a session and what runs in it")}


def main(words: list[str], options: Options) -> int:
    """List sessions, or end one."""
    words = take_all(words, options)
    return kill(words[1:], options) if words[:1] == ["kill"] else list_sessions(words, options)


def list_sessions(words: list[str], options: Options) -> int:
    """List the sessions of a shed, of all sheds, or of all servers' sheds."""
    parser = Parser(
        "sessions",
        "List the tmux sessions in running sheds.  No shed is started for it.  To end one: shed sessions kill NAME "
        "SESSION",
        examples=["shed sessions", "shed sessions dev", "shed sessions --all", "shed sessions kill dev build"],
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the shed (default: all of the server)")
    parser.add_argument("-a", "--all", action="store_true", help="ask all configured servers")
    args = parser.parse(words, options)
    if args.all and (args.name is not None or options.server is not None):
        raise UsageError("--all asks all servers for all sheds", hint="leave out --all, or the name and -s")
    failed = 0
    if args.all:
        sessions, failed = _everywhere(options)
    elif args.name is not None:
        sessions = client_of(args.name, options).sessions(args.name)
    else:
        with shown(options) as sink:
            sessions = client(options).all_sessions(on_event=sink)
    if options.json:
        emit(sessions)
    elif sessions or not sys.stdout.isatty():
        headers = [*(["SERVER"] if args.all else []), "SHED", "SESSION", "WINDOWS", "ATTACHED", "CREATED"]
        say(table(headers, [_row(session)[not args.all :] for session in sessions]), end="")
    else:
        note("no sessions; make one: shed attach NAME")
    return failed


def kill(words: list[str], options: Options) -> int:
    """End a session."""
    parser = Parser(
        "sessions kill", "End a tmux session in a shed, and what runs in it.", examples=["shed sessions kill dev build"]
    )
    parser.add_argument("name", metavar="NAME", help="the shed")
    parser.add_argument("session", metavar="SESSION")
    args = parser.parse(words, options)
    client_of(args.name, options).kill_session(args.name, args.session)
    done(options, "kill", args.session, f"ended session {args.session} of {args.name}", shed=args.name)
    return 0


def _everywhere(options: Options) -> tuple[list[dict[str, Any]], int]:
    """Ask all servers at once; return their sessions, and 1 when one of them did not answer."""
    config = load(options.config)
    found: list[dict[str, Any]] = []
    failed = 0
    with shown(options) as sink:
        for name, answer in ask(config, config.names(), lambda server: server.all_sessions(on_event=sink)).items():
            if isinstance(answer, NotRunningError) and name == LOCAL:
                continue  # nobody has sessions where no server runs
            if isinstance(answer, ShedError):
                sink(WarningEvent(f"{name}: {answer.message}"))
                failed = 1
            else:
                found += [{"server": name, **session} for session in answer]
    return found, failed


def _row(session: dict[str, Any]) -> list[str]:
    attached = session.get("attached")
    shown = [str(session.get(key, "-")) for key in ("server", "shed", "name", "windows")]
    return [*shown, "yes" if attached else "no", age(str(session.get("created_at", "")))]
