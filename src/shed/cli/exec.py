"""`shed exec` and `shed console`.

Agents and scripts call `exec` thousands of times, so what it imports on its way to the server is counted in
microseconds: no argparse, no json, no signal (enum), no contextlib.  Its words are parsed here, by hand, for another
reason as well: from the command on they belong to the command, whatever they look like.
"""

from __future__ import annotations

import os

from shed.cli.options import Options, take
from shed.cli.terminal import RawTerminal, Signals, environment, window
from shed.client.address import Address
from shed.client.config import resolve
from shed.client.execution import Execution
from shed.errors import NotFoundError, ShedError, UsageError
from shed.execstream import Exit

FAILED = 125
"""Exit code when shed itself failed; the command's own codes pass through."""
EXEC_HELP = """\
usage: shed exec [OPTION...] NAME [OPTION...] [--] COMMAND [ARGUMENT...]

Run a command in a shed.  Its words arrive as they are: no shell takes them apart.  A stopped shed is started first.
The exit code is the command's (128 + N when signal N ended it); 125 when shed could not run it.

options:
  -t, --tty            give the command a terminal (default: when standard input and output are one)
  -T, --no-tty         give it pipes
  -n, --no-stdin       give it an empty standard input
  -e, --env KEY=VALUE  set a variable for it; can be repeated
  -w, --workdir DIR    run it in this folder of the shed
  -u, --user USER      run it as this user
  -S, --session NAME   run it in a new window of this tmux session, which is made when it is missing, and do not wait for its end
  -s, --server SERVER, -c, --config FILE, --json, -v: as everywhere

examples:
  shed exec dev -- make test
  shed exec dev -- sh -c 'ls | wc -l'
  tar c . | shed exec dev -- tar x -C /workspace
  shed exec dev -S build -- make all
"""
CONSOLE_HELP = """\
usage: shed console [OPTION...] NAME

Open a login shell in a shed.  The options are those of: shed exec --help
"""
OPTIONS = {
    "-e": "env", "--env": "env", "-w": "workdir", "--workdir": "workdir", "-u": "user", "--user": "user",
    "-S": "session", "--session": "session",
}  # fmt: skip
FLAGS = {
    "-t": "tty",
    "--tty": "tty",
    "-T": "no-tty",
    "--no-tty": "no-tty",
    "-n": "no-stdin",
    "--no-stdin": "no-stdin",
    "-i": "",
}


class Request:
    """What the words after `exec` ask for."""

    __slots__ = ("command", "env", "help", "name", "session", "stdin", "tty", "user", "workdir")

    def __init__(self) -> None:
        self.name = ""
        self.command: list[str] = []
        self.tty: bool | None = None
        self.stdin = True
        self.env: list[str] = []
        self.workdir: str | None = None
        self.user: str | None = None
        self.session: str | None = None
        self.help = False


def parse(words: list[str], options: Options) -> Request:
    """Return what `words` ask for; global options among them go to `options`.  Raises `UsageError`."""
    request = Request()
    index = 0
    while index < len(words) and not request.help:
        word = words[index]
        if word == "--":
            index += 1
            if not request.name and index < len(words):
                request.name = words[index]
                index += 1
            break
        if word[:1] == "-" and word != "-":
            index += take(words[index:], options) or _take(words[index:], request)
            continue
        if request.name:
            break
        if not word:
            raise UsageError("the name of the shed is empty", hint="is a variable in it not set?")
        request.name = word
        index += 1
    request.command = words[index:]
    return request


def _take(words: list[str], request: Request) -> int:
    """Note the option of exec that `words` start with; return how many words it is."""
    word, used = words[0], 1
    name, equals, value = word.partition("=")
    if word in ("-h", "--help"):
        request.help = True
    elif word in FLAGS:
        _set_flag(FLAGS[word], request)
    elif name in OPTIONS:
        if not equals:
            if len(words) < 2:
                raise UsageError(f"option {word} needs a value", hint="see: shed exec --help")
            value, used = words[1], 2
        _set_value(OPTIONS[name], value, request)
    elif word[:2] in OPTIONS and word[1] != "-":
        _set_value(OPTIONS[word[:2]], word[2:], request)
    elif word[1] != "-" and all("-" + letter in FLAGS for letter in word[1:]):  # -it
        for letter in word[1:]:
            _set_flag(FLAGS["-" + letter], request)
    else:
        raise UsageError(
            f"unknown option {word}", hint="put -- before a command that starts with '-'; see: shed exec --help"
        )
    return used


def _set_flag(flag: str, request: Request) -> None:
    if flag == "no-stdin":
        request.stdin = False
    elif flag:  # -i is what other tools need to pass standard input on
        request.tty = flag == "tty"


def _set_value(option: str, value: str, request: Request) -> None:
    if option == "env":
        if "=" not in value[1:]:
            raise UsageError(f"--env {value}: that is not KEY=VALUE", hint="write it so, also with an empty VALUE")
        request.env.append(value)
    else:
        setattr(request, option, value)


def exec_command(words: list[str], options: Options) -> int:
    """Run a command in a shed; return its exit code."""
    request = parse(words, options)
    if request.help:
        print(EXEC_HELP, end="")  # noqa: T201  no import for it
        return 0
    if not request.name:
        raise UsageError("exec needs the name of a shed", hint="shed exec NAME -- COMMAND")
    if not request.command:
        raise UsageError(
            f"what shall run in {request.name}?",
            hint=f"shed exec {request.name} -- COMMAND, or: shed console {request.name}",
        )
    if not request.command[0]:
        raise UsageError("the command's first word is empty", hint="is a variable in it not set?")
    if request.session is not None:
        from shed.cli.attach import run_in_session  # noqa: PLC0415  only those with a session pay for it

        return run_in_session(request, options)
    return _run(request, options)


def console_command(words: list[str], options: Options) -> int:
    """Open a login shell in a shed; return its exit code."""
    request = parse(words, options)
    if request.help:
        print(CONSOLE_HELP, end="")  # noqa: T201  as above
        return 0
    if not request.name or request.command or request.session is not None:
        raise UsageError("console needs the name of a shed, and nothing else", hint="shed console NAME")
    if request.tty is None:
        request.tty = os.isatty(0)
    return _run(request, options)


def _run(request: Request, options: Options) -> int:
    """Carry out `request`.  Failures of shed are reported here, because their exit code differs from everywhere else."""
    try:
        ended = execute(request, options)
        if not ended.error:
            return ended.code
        error, code = ShedError(f"{request.name}: {ended.error}", code="EXEC_FAILED"), ended.code
    except ShedError as failure:
        error, code = failure, FAILED
    from shed.cli.errors import report  # noqa: PLC0415

    report(error, options)
    return code


def execute(request: Request, options: Options) -> Exit:
    """Run the command with this process's standard descriptors.  Raises the `ShedError` that kept it from running."""
    _open_missing()
    tty = os.isatty(0) and os.isatty(1) if request.tty is None else request.tty
    with begin(request, options, tty=tty) as execution:
        stdin = 0 if request.stdin else None
        if not (tty and request.stdin and os.isatty(0)):
            with Signals(execution) as signals:
                return execution.run(stdin=stdin, wake=signals)
        with RawTerminal() as raw, Signals(execution, raw=raw) as signals:
            return execution.run(stdin=stdin, wake=signals)


def begin(request: Request, options: Options, *, tty: bool) -> Execution:
    """Start the command; the user hears when its shed must be started first.

    Raises the `ShedError` that keeps it from running.
    """
    _check_name(request.name)
    address = resolve(options.server, config=options.config, shed=request.name)
    try:
        return _begin_at(address, request, options, tty=tty)
    except NotFoundError as error:
        if not address.guess or error.code != "SHED_NOT_FOUND":
            raise
        from shed.client.locate import elsewhere  # noqa: PLC0415  only for those with several servers

        return _begin_at(elsewhere(request.name, address, options.config, error), request, options, tty=tty)


def _begin_at(address: Address, request: Request, options: Options, *, tty: bool) -> Execution:
    return Execution(
        address,
        request.name,
        request.command,
        tty=tty,
        size=window() if tty else None,
        env=(environment() if tty else []) + request.env,
        working_dir=request.workdir,
        user=request.user,
        on_wait=lambda: _say_waiting(request.name, options),
        on_start=lambda: _say_starting(request.name, options),
    )


def _check_name(name: str) -> None:
    """Refuse what cannot be a shed's name.

    The rule itself needs `re`, so only names that look wrong are held against it.
    """
    letters = name.replace("-", "")
    if not (
        name[0].isalpha()
        and name[-1] != "-"
        and letters.isascii()
        and letters.isalnum()
        and letters.islower()
        and len(name) <= 63
    ):
        from shed.names import check_shed_name  # noqa: PLC0415

        check_shed_name(name)


def _open_missing() -> None:
    """Make sure that descriptors 0, 1 and 2 are open, so that none of them becomes our socket."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _say_waiting(name: str, options: Options) -> None:
    if not options.json and os.isatty(2):
        os.write(2, f"waiting for {name}...\n".encode())


def _say_starting(name: str, options: Options) -> None:
    if not options.json:
        os.write(2, f"Starting shed {name}...\n".encode())
