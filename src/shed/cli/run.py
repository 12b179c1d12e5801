"""`shed run`: a shed for one command."""

from __future__ import annotations

import os

from shed.cli.arguments import argument, flag, option
from shed.cli.command import command
from shed.cli.connection import client, seen
from shed.cli.errors import report
from shed.cli.making import RUNNING, asked_to_create
from shed.cli.output import shown
from shed.cli.sheds import undone, update_ssh
from shed.errors import ShedError, UsageError
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shed.cli.options import Options
    from shed.cli.running import Request
    from shed.client.options import ShedOptions
    from shed.client.sync.api import Api
    from shed.progress import Event

    Show = Callable[[Event], None]

_WORKSPACE = "/workspace"
_TRIES = 20
"""Names that are tried for a shed that was given none."""
_MODES = ("rw", "ro", "git-rw")


@command(
    "run",
    argument("COMMAND", "what to run, and its arguments (default: a login shell)", count="rest"),
    option("--name", "NAME", "name of the shed (default: run- and a random number)"),
    flag("--rm", "delete the shed when the command ends, or this program, however it ends"),
    option(
        "--out",
        "PATH:DIR",
        "after the command, copy PATH of the shed into the folder DIR of this machine; can be repeated",
        repeat=True,
        offers="",
    ),
    flag("-t, --tty", "give the command a terminal (default: if standard input and output are terminals)"),
    flag("-T, --no-tty", "give it pipes"),
    flag("-i, --interactive", "pass standard input on, which is done anyhow"),
    flag("-n, --no-stdin", "give it an empty standard input"),
    option("-w, --workdir", "FOLDER", "run it in this folder of the shed (default: the image's, or /workspace)"),
    option("-u, --user", "USER", "run it as this user (default: the image's, or shed, or root)"),
    option(
        "-v, --volume",
        "DIR[:DST][:MODE]",
        "folder DIR of this machine to mount at DST, or /workspace, as --mount and --local-dir do; can be repeated",
        offers="folders",
        repeat=True,
    ),
    *RUNNING,
    examples=[
        "shed run --rm -- uname -a",
        "shed run --rm -v . --out dist:. -- make dist",
        "shed run --rm -it --image base",
    ],
)
def run(args: Any, options: Options) -> int:
    """Create a shed, run a command in it, and stop the shed; with --rm, delete it.

    The exit code is the command's (128 + N when signal N ended it), or 125 when shed could not run it.  Options of the
    command itself need no -- before them: what follows its first word is its own.

    With --rm nothing of the shed is left, also when this program is killed or its connection breaks.  Without it the
    shed stays with its files: `shed start` and `shed exec` go on with it.
    """
    request = _request(args)
    places = [_out(word) for word in args.out]
    for words in args.volume:
        folder, target, mode = _volume(words)
        if target != _WORKSPACE:
            args.mount.append(f"{folder}:{target}{mode}")
        elif args.local_dir is not None:
            raise UsageError(
                f"--volume {words}: there is a folder at {_WORKSPACE} already", hint="leave one of them out"
            )
        else:
            args.local_dir = f"{folder}{mode}"
    server = client(options)
    wanted = asked_to_create(args, server, options)
    do, left = _attached if args.rm else _kept, 1 if args.name else _TRIES
    while True:
        try:
            return do(server, request, wanted, places, options)
        except ShedError as error:
            left -= 1
            if not left or error.code != "SHED_ALREADY_EXISTS":
                from shed.cli.running import FAILED

                report(error, options)
                return FAILED
        request.name = _some_name()


def _attached(
    server: Api, request: Request, wanted: ShedOptions, places: list[tuple[str, str]], options: Options
) -> int:
    """Do what is asked for in a shed that ends with this program."""
    attached = server.attached(request.name, **wanted)
    with shown(options) as sink:
        shed = attached.make(_beside_the_command(sink))
    try:
        _check(shed)
        return _work(server, request, places, options)
    finally:
        attached.leave()


def _kept(server: Api, request: Request, wanted: ShedOptions, places: list[tuple[str, str]], options: Options) -> int:
    """Do what is asked for in a shed that is stopped then."""
    name = request.name
    with undone(server, name, options), shown(options) as sink:
        shed = server.create(name, on_event=_beside_the_command(sink), **wanted)
    update_ssh(server, options, made=[name])
    try:
        _check(shed)
        return _work(server, request, places, options)
    finally:
        try:
            server.stop(name)
        except ShedError as error:
            if error.code != "SHED_ALREADY_STOPPED":
                report(error, options)
        seen(server, options, {name: "stopped"})
        if not options.json:
            note(f"{name} is stopped and kept; go on: shed console {name}; remove it: shed delete {name}")


def _check(shed: dict[str, Any]) -> None:
    """Raise `ShedError` when not all was done in a new shed: its repository was not cloned."""
    if failed := shed.get("failed"):
        raise ShedError("; ".join(map(str, failed)), hint="the command was not run")


def _work(server: Api, request: Request, places: list[tuple[str, str]], options: Options) -> int:
    """Run the command and copy what it has left; return its exit code, or that of a failure to copy."""
    from shed.cli.exec import execute_and_report
    from shed.cli.running import FAILED

    code = execute_and_report(request, options, server.address)
    for path, folder in places:
        from shed.client.copying import Copy, Place

        try:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            with shown(options) as sink:
                show = _beside_the_command(sink)
                Copy(lambda _: server.address, Place(request.name, path), Place("", folder), on_event=show).run()
        except (ShedError, OSError) as error:
            failed = error if isinstance(error, ShedError) else UsageError(f"{folder}: {error.strerror}")
            report(failed, options)
            code = code or FAILED
    return code


def _beside_the_command(sink: Show) -> Show:
    """Return what shows progress on a terminal; in a file or a pipe, which has what the command says, only warnings."""
    from shed.progress import WarningEvent

    def show(event: Event) -> None:
        if os.isatty(2) or isinstance(event, WarningEvent):
            sink(event)

    return show


def _request(args: Any) -> Request:
    """Return what is to run.  Raises `UsageError`."""
    from shed.cli.running import Request

    if args.command and not args.command[0]:
        raise UsageError("the command's first word is empty", hint="is a variable in it not set?")
    request = Request()
    request.name = args.name or _some_name()
    request.command = args.command
    request.tty = True if args.tty else False if args.no_tty else None if args.command else os.isatty(0)
    request.stdin = not args.no_stdin
    request.workdir, request.user = args.workdir, args.user
    return request


def _some_name() -> str:
    """Return one of 4096 names: a lock stays of each that was used, for ever."""
    return f"run-{os.urandom(2).hex()[:3]}"


def _out(word: str) -> tuple[str, str]:
    """Return the path in the shed and the folder here that ``PATH:DIR`` names.  Raises `UsageError`."""
    path, _, folder = word.rpartition(":")
    if not path or not folder:
        raise UsageError(f"--out {word}: it is PATH:DIR", hint=f"for example --out {word.strip(':') or 'dist'}:.")
    if os.path.lexists(folder) and not os.path.isdir(folder):  # noqa: PTH112
        raise UsageError(f"--out {word}: {folder} is not a folder", hint="name a folder, or one that is to be made")
    return path, folder


def _volume(words: str) -> tuple[str, str, str]:
    """Return DIR, DST and ``:MODE`` of docker's ``DIR[:DST][:MODE]``; MODE may be missing."""
    path, _, mode = words.rpartition(":")
    if not path or mode not in _MODES:
        path, mode = words, ""
    folder, _, target = path.rpartition(":")
    if not folder or not target.startswith("/"):
        folder, target = path, _WORKSPACE
    return folder, target.rstrip("/") or "/", f":{mode}" if mode else ""
