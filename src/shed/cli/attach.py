"""`shed attach`, and `shed exec -S`: tmux sessions in a shed, which outlive the connection."""

from __future__ import annotations

import os
import tempfile

from shed.cli.exec import FAILED, Request, begin, execute
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.errors import BackendError, ConflictError, ShedError, UnavailableError, UsageError
from shed.execstream import Exit
from shed.names import check_session_name
from shed.terminal.output import note

DEFAULT_SESSION = "default"
_NOT_FOUND = 127
_IN_WINDOW = 'tmux set-option -wt "$TMUX_PANE" remain-on-exit on; echo; exec "$@"'
"""What a window of `run_in_session` runs: it stays when its command has ended, so that its output can be read.  When it
tells that end, tmux moves all lines up by one: the empty one leaves the window first.
"""
_NEW_WINDOW = """\
session=$1; shift
command -v tmux >/dev/null || exit 127
tmux has-session -t "=$session" 2>/dev/null || tmux new-session -d -s "$session" || tmux has-session -t "=$session" || exit
exec tmux new-window -P -F '#{window_index}' -t "=$session:" "$@"
"""


def attach(words: list[str], options: Options) -> int:
    """Open a tmux session in a shed; return the exit code of the client that showed it."""
    parser = Parser(
        "attach",
        "Open a tmux session in a shed, which goes on when the connection ends.  A stopped shed is started first.  "
        "Where the image has no\n"
        "tmux, and no session was named, this is a login shell.",
        examples=["shed attach dev", "shed attach dev -S build", "shed attach dev --new"],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-S", "--session", metavar="SESSION", help=f"the session, made when it is missing (default: {DEFAULT_SESSION})"
    )
    parser.add_argument("--new", action="store_true", help="make a new session; without -S tmux chooses its name")
    args = parser.parse(words, options)
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
                f"shed {args.name!r} has a session {args.session!r} already",
                code="SESSION_ALREADY_EXISTS",
                hint=f"leave out --new to open it, or end it: shed sessions kill {args.name} {args.session}",
            )
    named = [] if args.new and args.session is None else ["-s", args.session or DEFAULT_SESSION]
    request.command = ["tmux", "-u", "new-session", *([] if args.new else ["-A"]), *named]
    ended = execute(request, options)
    if ended.code == _NOT_FOUND and ended.error:
        if args.new or args.session is not None:
            raise _no_tmux(args.name)
        note(f"the image of {args.name} has no tmux: this is a login shell, which ends with the connection")
        request.command = []
        ended = execute(request, options)
    return _code(ended, args.name)


def run_in_session(request: Request, options: Options) -> int:
    """Start the command of `request` in a window of its session, and return; its words arrive as they are.

    The code is 0, or 125.
    """
    session = check_session_name(request.session or "")
    if request.tty is not None:
        raise UsageError("with --session a command has the terminal of its session", hint="leave out -t and -T")
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
        f"runs in window {window} of session {session}; to see it: {see}",
        session=session,
        window=window,
    )
    return 0


def _ask(request: Request, options: Options) -> tuple[Exit, str, str]:
    """Run the command without a terminal and without input; return how it ended and what it said on either output."""
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
        raise BackendError(f"{name}: {ended.error}", code="EXEC_FAILED")
    return ended.code
