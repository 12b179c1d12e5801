"""`shed attach | sessions`, and `shed exec -S`: tmux sessions in a shed, which outlive the connection."""

from __future__ import annotations

import os
import sys

from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client, client_of
from shed.cli.output import done, shown, waiting
from shed.cli.running import FAILED, Request, begin, execute
from shed.errors import BackendError, ConflictError, ShedError, UnavailableError, UsageError
from shed.terminal.output import age, emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.execstream import Exit
    from shed.progress import Event

DEFAULT_SESSION = "default"
_NOT_FOUND = 127
_IN_WINDOW = 'tmux set-option -wt "$TMUX_PANE" remain-on-exit on; echo; exec "$@"'
"""What a window of `run_in_session` runs: it stays when its command has ended, so that its output can be read.  When it
tells that end, tmux moves all lines up by one: the empty one leaves the window first.
"""
_NEW_WINDOW = """\
session=$1; shift
command -v tmux >/dev/null || exit 127
tmux has-session -t "=$session" 2>/dev/null || tmux new-session -d -s "$session" ||
    tmux has-session -t "=$session" || exit
exec tmux new-window -P -F '#{window_index}' -t "=$session:" "$@"
"""


@command(
    "attach",
    SHED,
    option(
        "-S, --session",
        "SESSION",
        f"name of the session, which is created when it is missing (default: {DEFAULT_SESSION})",
        offers="sessions",
    ),
    flag("--new", "create a new session; without -S tmux chooses its name"),
    examples=["shed attach dev", "shed attach dev -S build", "shed attach dev --new"],
)
def attach(args: Any, options: Options) -> int:
    """Open a tmux session in a shed.  The session goes on when the connection ends.

    A stopped shed is started first.  If the image has no tmux and no session is named, this opens a login shell.
    """
    from shed.names import check_session_name

    if args.session is not None:
        check_session_name(args.session)
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError(
            "attach needs a terminal",
            hint=f"to run something in a session: shed exec {args.name} -S SESSION -- COMMAND",
        )
    request = Request()
    request.name, request.tty = args.name, True
    if args.new and args.session is not None:
        request.command = ["tmux", "has-session", "-t", f"={args.session}"]
        if _ask(request, options)[0].code == 0:
            raise ConflictError(
                f"shed {args.name!r} already has a session {args.session!r}",
                code="SESSION_ALREADY_EXISTS",
                hint=f"leave out --new to open it, or end it: shed sessions kill {args.name} {args.session}",
            )
    named = [] if args.new and args.session is None else ["-s", args.session or DEFAULT_SESSION]
    request.command = ["tmux", "-u", "new-session", *([] if args.new else ["-A"]), *named]
    ended = execute(request, options)
    if ended.code == _NOT_FOUND and ended.error:
        if args.new or args.session is not None:
            raise _no_tmux(args.name)
        note(f"the image of {args.name} has no tmux: this is a login shell, and it ends with the connection")
        request.command = []
        ended = execute(request, options)
    return _code(ended, args.name)


def run_in_session(request: Request, options: Options) -> int:
    """Start the command of `request` in a new window of its session, and return without waiting for its end.

    The exit code is 0, or 125 when it could not be started.
    """
    from shed.names import check_session_name

    session = check_session_name(request.session or "")
    if request.tty is not None:
        raise UsageError("with --session the command uses the terminal of the session", hint="leave out -t and -T")
    settings = [word for assignment in request.env for word in ("-e", assignment)]
    if request.workdir is not None:
        settings += ["-c", request.workdir.replace("#", "##")]  # tmux expands #{…} in it
    command = [*settings, "--", "sh", "-c", _IN_WINDOW, "sh", *request.command]
    request.command = ["sh", "-c", _NEW_WINDOW, "sh", session, *map(_literal, command)]
    request.env, request.workdir = [], None
    try:
        ended, window, complaint = _ask(request, options)
    except ShedError as error:
        error.exit_code = FAILED
        raise
    if ended.code:
        failure = (
            _no_tmux(request.name)
            if ended.code == _NOT_FOUND
            else BackendError(f"{request.name}: {ended.error or complaint}")
        )
        failure.exit_code = FAILED
        raise failure
    see = f"shed attach {request.name} -S {session}"
    done(
        options,
        "exec",
        request.name,
        f"running in window {window} of session {session}; to see it: {see}",
        session=session,
        window=window,
    )
    return 0


def _ask(request: Request, options: Options) -> tuple[Exit, str, str]:
    """Run the command without a terminal and without input; return how it ended, its output and its error output."""
    import tempfile

    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        with begin(request, options, tty=False) as execution:
            ended = execution.run(stdin=None, stdout=stdout.fileno(), stderr=stderr.fileno())
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read().decode(errors="replace").strip())
    return ended, said[0], said[1]


def _literal(word: str) -> str:
    """Return `word` so that tmux takes it as it is: a semicolon at a word's end would begin another command of tmux."""
    return word[:-1] + "\\;" if word.endswith(";") else word


def _no_tmux(name: str) -> ShedError:
    return UnavailableError(
        f"the image of shed {name!r} has no tmux",
        code="TMUX_NOT_AVAILABLE",
        hint=f"install it in the shed, or use: shed console {name}",
    )


def _code(ended: Exit, name: str) -> int:
    if ended.error:
        raise ShedError(f"{name}: {ended.error}", code="EXEC_FAILED")
    return ended.code


@command(
    "sessions",
    argument("NAME", "name of the shed (default: all sheds of the server)", count="?", offers="sheds"),
    flag("-a, --all", "ask all configured servers"),
    examples=["shed sessions", "shed sessions dev", "shed sessions --all", "shed sessions kill dev build"],
)
def list_sessions(args: Any, options: Options) -> int:
    """List the tmux sessions in running sheds.  No shed is started.

    To end one: shed sessions kill NAME SESSION
    """
    if args.all and (args.name is not None or options.server is not None):
        raise UsageError("--all asks all servers for all sheds", hint="leave out --all, or the name and -s")
    failed = 0
    if args.all:
        found, failed = _of_all_servers(options)
    elif args.name is not None:
        with waiting(options, f"asking {args.name}"):
            found = client_of(args.name, options).sessions(args.name)
    else:
        events: list[Event] = []
        with waiting(options, "asking all sheds"):
            found = client(options).all_sessions(on_event=events.append)
        _show(events, options)
    if options.json:
        emit(found)
    elif found or not sys.stdout.isatty():
        headers = [*(["SERVER"] if args.all else []), "SHED", "SESSION", "WINDOWS", "ATTACHED", "CREATED"]
        say(table(headers, [_row(session)[not args.all :] for session in found]), end="")
    else:
        note("no sessions; make one: shed attach NAME")
    return failed


@command(
    "sessions kill",
    SHED,
    argument("SESSION", "name of the session", offers="sessions"),
    examples=["shed sessions kill dev build"],
)
def kill(args: Any, options: Options) -> int:
    """End a tmux session in a shed and the programs in it."""
    client_of(args.name, options).kill_session(args.name, args.session)
    done(options, "kill", args.session, f"ended session {args.session} of {args.name}", shed=args.name)
    return 0


sessions = Group(
    "sessions",
    "The tmux sessions in sheds.",
    {"kill": Entry("shed.cli.sessions:kill", "end a session and the programs in it")},
    default=list_sessions,
)


def _of_all_servers(options: Options) -> tuple[list[dict[str, Any]], int]:
    """Ask all servers at once; return their sessions, and 1 when one of them did not answer."""
    from shed.client.config import load
    from shed.client.locate import ask
    from shed.client.transport import NotRunningError
    from shed.names import LOCAL
    from shed.progress import WarningEvent

    config = load(options.config)
    found: list[dict[str, Any]] = []
    events: list[Event] = []
    failed = 0
    with waiting(options, "asking all servers"):
        answers = ask(config, config.names(), lambda server: server.all_sessions(on_event=events.append))
    for name, answer in answers.items():
        if isinstance(answer, NotRunningError) and name == LOCAL:
            continue  # nobody has sessions where no server runs
        if isinstance(answer, ShedError):
            events.append(WarningEvent(f"{name}: {answer.message}"))
            failed = 1
        else:
            found += [{"server": name, **session} for session in answer]
    _show(events, options)
    return found, failed


def _show(events: list[Event], options: Options) -> None:
    with shown(options) as sink:
        for event in events:
            sink(event)


def _row(session: dict[str, Any]) -> list[str]:
    attached = session.get("attached")
    shown = [str(session.get(key, "-")) for key in ("server", "shed", "name", "windows")]
    return [*shown, "yes" if attached else "no", age(str(session.get("created_at", "")))]
