"""What a command shows by the global options: what it did, progress, questions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from shed.cli.options import Options
from shed.errors import UsageError
from shed.progress import Event
from shed.terminal import progress
from shed.terminal.output import emit, note, say
from shed.text import visible_lines


def done(options: Options, action: str, name: str, sentence: str, **details: object) -> None:
    """Say that `action` on `name` is done: `sentence` for people, an object with `details` for programs."""
    if options.json:
        emit({"status": "ok", "action": action, "name": name, **details})
    else:
        say(sentence)


def shown(options: Options) -> contextlib.AbstractContextManager[Callable[[Event], None]]:
    """Return a context that yields a function which shows progress events, as `options` ask for it."""
    return progress.shown(json=options.json)


@contextlib.contextmanager
def watched(options: Options, *, left: str = "the server goes on; see: shed list") -> Iterator[Callable[[Event], None]]:
    """Yield what `shown` does, for work of the server.  On ctrl-C, `left` tells what becomes of that work."""
    try:
        with shown(options) as sink:
            yield sink
    except KeyboardInterrupt:
        if not options.json:
            note(left)
        raise


def confirm(question: str, options: Options, *, force: bool) -> bool:
    """Return whether the user agrees: with `force` always, on a terminal when the answer is yes.

    Raises `UsageError` (CONFIRMATION_NEEDED) where nobody can be asked.
    """
    if force:
        return True
    if options.json or not sys.stdin or not sys.stdin.isatty():
        why = "--json asks no questions" if options.json else "standard input is not a terminal, so nobody can be asked"
        raise UsageError(f"refusing to delete: {why}", code="CONFIRMATION_NEEDED", hint="add --force to go ahead")
    sys.stderr.write(f"{visible_lines(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
