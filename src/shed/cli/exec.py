"""`shed exec` and `shed console`.

Agents and scripts call `exec` thousands of times, so it imports as little as possible on its way to the server: no
json, no signal (enum), no contextlib.  Its words are parsed here, because everything after the name of the command
belongs to that command, whatever it looks like.
"""

from __future__ import annotations

import os

from shed.cli.options import Options, take
from shed.cli.running import FAILED, Request, execute
from shed.errors import ShedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.client.address import Address

EXEC_HELP = """\
usage: shed exec [OPTION...] NAME [OPTION...] [--] COMMAND [ARGUMENT...]

Run a command in a shed.  Its words are passed on as they are, without a shell.  A stopped shed is started first.
The exit code is the command's (128 + N when signal N ended it), or 125 when shed could not run it.
What processes that it leaves in the background write within two seconds of its end is shown; what they write later is
thrown away, and they run on.

options:
  -t, --tty            give the command a terminal (default: if standard input and output are terminals)
  -T, --no-tty         give it pipes
  -n, --no-stdin       give it an empty standard input
  -e, --env KEY[=VALUE]
                       set an environment variable for it, without VALUE as it is here; can be repeated
  --env-file FILE      set the variables in this file: a KEY=VALUE or KEY on each line; # begins a comment
  -w, --workdir DIR    run it in this folder of the shed (default: the image's, or /workspace)
  -u, --user USER      run it as this user (default: the image's, or shed, or root)
  -S, --session NAME   run it in a new window of this tmux session, and do not wait for its end; the session is created
                       when it is missing
  -s, --server SERVER, -c, --config FILE, --json, -v: as for every command

examples:
  shed exec dev -- make test
  shed exec dev -- sh -c 'ls | wc -l'
  tar c . | shed exec dev -- tar x -C /workspace
  shed exec dev -S build -- make all
"""
CONSOLE_HELP = """\
usage: shed console [OPTION...] NAME

Open a login shell in a shed.  It has the options of `shed exec`, without --session.
"""
OPTIONS = {
    "-e": "env", "--env": "env", "--env-file": "env-file",
    "-w": "workdir", "--workdir": "workdir", "-u": "user", "--user": "user",
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
        from shed.cli.variables import variable

        request.env += variable(value, f"--env {value}")
    elif option == "env-file":
        from shed.cli.variables import read_variables

        request.env += read_variables(value)
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
            f"exec needs a command to run in {request.name}",
            hint=f"shed exec {request.name} -- COMMAND, or: shed console {request.name}",
        )
    if not request.command[0]:
        raise UsageError("the command's first word is empty", hint="is a variable in it not set?")
    if request.session is not None:
        from shed.cli.sessions import run_in_session

        return run_in_session(request, options)
    return execute_and_report(request, options)


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
    return execute_and_report(request, options)


def execute_and_report(request: Request, options: Options, address: Address | None = None) -> int:
    """Carry out `request`, by the server at `address` if that is known, and return the exit code.

    Failures of shed are reported here, because their exit code differs from that of other commands.
    """
    try:
        ended = execute(request, options, address)
        if not ended.error:
            return ended.code
        error, code = ShedError(f"{request.name}: {ended.error}", code="EXEC_FAILED"), ended.code
    except ShedError as failure:
        error, code = failure, FAILED
    from shed.cli.errors import report

    report(error, options)
    return code
