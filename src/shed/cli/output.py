"""What a command shows by the global options: what it did, progress, questions."""

from __future__ import annotations

import sys

from shed.errors import UsageError
from shed.terminal.output import emit, note, say
from shed.text import visible_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from shed.cli.options import Options
    from shed.progress import Event


def done(options: Options, action: str, name: str, sentence: str, **details: object) -> None:
    """Say that `action` on `name` is done: `sentence` for people, an object with `details` for programs."""
    if options.json:
        emit({"status": "ok", "action": action, "name": name, **details}, line=options.json_lines)
    else:
        say(sentence)


def shown(options: Options) -> AbstractContextManager[Callable[[Event], None]]:
    """Return a context that yields a function which shows progress events, as `options` ask for it."""
    from shed.terminal import progress

    return progress.shown(json=options.json, verbose=bool(options.verbose))


def waiting(options: Options, message: str) -> AbstractContextManager[None]:
    """Return a context that shows `message` when the block takes longer than a second."""
    from shed.terminal import progress

    return progress.waiting(message, json=options.json)


class watched:  # noqa: N801  used as a function is, as contextlib's are
    """What `shown` returns, for work of the server.  On ctrl-C, `left` tells what becomes of that work."""

    def __init__(self, options: Options, *, left: str = "the server goes on; see: shed list") -> None:
        self._quiet = options.json
        self._left = left
        self._shown = shown(options)

    def __enter__(self) -> Callable[[Event], None]:
        return self._shown.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt) and not self._quiet:
            note(self._left)


def confirm(question: str, options: Options, *, force: bool, to: str = "delete") -> bool:
    """Return whether the user agrees `to` do it: with `force` always, on a terminal when the answer is yes.

    Raises `UsageError` (CONFIRMATION_NEEDED) where nobody can be asked.
    """
    if force:
        return True
    if options.json or not sys.stdin or not sys.stdin.isatty():
        why = "--json asks no questions" if options.json else "standard input is not a terminal, so nobody can be asked"
        raise UsageError(f"refusing to {to}: {why}", code="CONFIRMATION_NEEDED", hint="add --force to go ahead")
    sys.stderr.write(f"{visible_lines(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
