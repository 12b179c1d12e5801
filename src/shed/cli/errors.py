"""How failures are shown: one sentence, one hint, an exit code.

Never a traceback, unless ``SHED_DEBUG`` asks for it.
"""

from __future__ import annotations

import os

from shed.cli.options import Options
from shed.errors import ShedError, StorageError, of_os_error
from shed.text import visible_lines

INTERRUPTED = 130
_BROKEN_PIPE = 128 + 13


def explain(error: BaseException, options: Options) -> int:
    """Report what ended a command, and return the exit code for it."""
    if os.environ.get("SHED_DEBUG") and not isinstance(error, SystemExit):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, FileNotFoundError) and error.filename is None and _is_nowhere():
        error = StorageError("the current folder no longer exists", code="NO_FOLDER", hint="go to another one: cd ~")
    if isinstance(error, ShedError):
        report(error, options)
        return error.exit_code
    if isinstance(error, SystemExit):  # a signal ended a command, see `shed.cli.running`
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        if options.json:
            report(ShedError("interrupted", code="INTERRUPTED"), options)
        else:
            _complain("interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    if isinstance(error, OSError) and (refusal := of_os_error(error)):
        report(refusal, options)
        return refusal.exit_code
    kind = type(error).__name__
    hint = "this is a bug in shed: run it again with SHED_DEBUG=1 and report what it prints"
    report(ShedError(f"{kind}: {error}", hint=hint), options)
    return 1


def report(error: ShedError, options: Options) -> None:
    """Write `error` to standard error: a sentence and a hint, or with ``--json`` one object."""
    if options.json:
        import json

        body = {"code": error.code, "message": error.message}
        _complain(json.dumps({"error": {**body, "hint": error.next_step} if error.next_step else body}))
        return
    label = "\x1b[1;31merror:\x1b[0m" if _colours() else "error:"
    _complain(f"{label} {_indented(error.message)}")
    if error.next_step:
        _complain(f"hint: {_indented(error.next_step)}")


def _indented(text: str) -> str:
    """Return `text` with all lines but the first one indented.

    They may come from a registry or a guest, and must not look like a line of shed.
    """
    first, *more = visible_lines(text).split("\n")
    return "".join([first, *("\n" + (line if line.startswith("  ") else f"  {line}") for line in more)])


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _complain(line: str) -> None:
    """Write one line to standard error as UTF-8.  Does nothing when it is closed."""
    try:
        os.write(2, (line + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        return


def _colours() -> bool:
    return os.isatty(2) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
