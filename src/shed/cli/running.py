"""Runs a command in a shed with this process's terminal, descriptors and signals.

No contextlib, no signal (enum): every `shed exec` comes here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed describes `signal` alone
import os
import time

from shed.client.address import Address
from shed.client.config import resolve
from shed.client.execution import Execution, Wake
from shed.errors import NotFoundError
from shed.execstream import Exit
from shed.names import check_shed_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from shed.cli.options import Options

FAILED = 125
"""Exit code when shed itself failed; the command's own codes pass through."""
_KNOWN_TERMS = (
    *("ansi", "dumb", "linux", "rxvt", "rxvt-unicode-256color", "screen", "screen-256color", "tmux", "tmux-256color"),
    *("vt100", "vt102", "vt220", "xterm", "xterm-256color", "xterm-color", "xterm-mono"),
)
"""Terminal types that Debian's ncurses-base and most other minimal systems describe."""
_LEAVE_COUNT, _LEAVE_SECONDS = 3, 2.0
_TWICE = 0.5
"""Seconds within which a signal counts once: `timeout` sends it to its child, and again to the child's process
group.
"""
_SILENCE = 3.0
"""Seconds without a sign of the command, after it was told to end, until the guest is asked whether it is well."""


class Request:
    """A command to run in a shed, and how."""

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


def execute(request: Request, options: Options, address: Address | None = None) -> Exit:
    """Run the command with this process's standard descriptors.  Raises the `ShedError` that kept it from running.

    Its server is looked for when it is not at `address`.
    """
    _open_missing()
    tty = os.isatty(0) and os.isatty(1) if request.tty is None else request.tty
    with begin(request, options, tty=tty, address=address) as execution:
        stdin = 0 if request.stdin else None
        if not (tty and request.stdin and os.isatty(0)):
            with Signals(execution) as signals:
                return execution.run(stdin=stdin, wake=signals)
        with RawTerminal() as raw, Signals(execution, raw=raw) as signals:
            return execution.run(stdin=stdin, wake=signals)


def begin(request: Request, options: Options, *, tty: bool, address: Address | None = None) -> Execution:
    """Start the command.  A message says when its shed must be started first.

    Raises the `ShedError` that keeps it from running.
    """
    check_shed_name(request.name)
    address = address or resolve(options.server, config=options.config, shed=request.name)
    try:
        return _begin_at(address, request, options, tty=tty)
    except NotFoundError as error:
        if not address.guess or error.code != "SHED_NOT_FOUND":
            raise
        from shed.client.locate import elsewhere

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


def environment() -> list[str]:
    """Return the environment variables that describe the user's terminal, as ``KEY=VALUE``."""
    term = os.environ.get("TERM", "")
    found = [f"TERM={term if term in _KNOWN_TERMS else 'xterm-256color'}"]
    if "COLORTERM" in os.environ:
        found.append(f"COLORTERM={os.environ['COLORTERM']}")
    return found


def window() -> tuple[int, int] | None:
    """Return (rows, columns) of the terminal; None when there is none, or when it does not know."""
    for fd in (1, 0, 2):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return None


class RawTerminal:
    """Puts the terminal of standard input into raw mode until the block ends, however it ends."""

    def __init__(self) -> None:
        import termios

        self._termios = termios
        self._before = termios.tcgetattr(0)

    def __enter__(self) -> RawTerminal:
        self.enforce()
        return self

    def __exit__(self, *_: object) -> None:
        self._set(self._before)

    def enforce(self) -> None:
        """Set raw mode, again if a shell has changed it."""
        t = self._termios
        mode: list[Any] = list(self._before)
        mode[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
        mode[1] &= ~t.OPOST
        mode[2] = mode[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        mode[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        mode[6] = list(mode[6])
        mode[6][t.VMIN], mode[6][t.VTIME] = 1, 0
        self._set(mode)

    def _set(self, mode: list[Any]) -> None:
        try:  # noqa: SIM105  draining: what was typed ahead is kept, what was printed is seen
            self._termios.tcsetattr(0, self._termios.TCSADRAIN, mode)
        except self._termios.error:  # it has hung up: nobody is there to mind
            pass


class Signals(Wake):
    """Handles signals while a command runs, until the block ends.

    Without a terminal, SIGINT, SIGTERM and SIGQUIT are passed on to the command.  If it does not react, `shed` itself
    ends after three ctrl-C within two seconds, a second SIGTERM or SIGQUIT, or when the guest no longer answers.  With
    a `raw` terminal, ctrl-C is a byte like others, the size of the window is passed on, and a signal that asks `shed`
    to end does so.
    """

    def __init__(self, execution: Execution, *, raw: RawTerminal | None = None) -> None:
        self._execution = execution
        self._raw = raw
        self._interrupts: list[float] = []
        self._asked: dict[int, float] = {}
        """When each signal first asked the command to end."""
        self._before: dict[int, Any] = {}
        self._wakeup = -1
        self.fd, self._write = os.pipe()
        for fd in (self.fd, self._write):
            os.set_blocking(fd, False)

    def __enter__(self) -> Signals:
        numbers = [_signal.SIGINT, _signal.SIGTERM, _signal.SIGQUIT]
        if self._raw is not None:
            numbers += [_signal.SIGHUP, _signal.SIGWINCH, _signal.SIGCONT]
        self._wakeup = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in numbers:
            handler = _signal.getsignal(number)
            if handler != _signal.SIG_IGN:  # as nohup and background jobs want it
                self._before[number] = handler
                _signal.signal(number, _noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write)

    def handle(self, number: int) -> None:
        """Act on one signal."""
        if number not in self._before:
            return
        if self._raw is None:
            self._pass_on(number)
        elif number in (_signal.SIGWINCH, _signal.SIGCONT):
            if number == _signal.SIGCONT:
                self._raw.enforce()
            size = window()
            if size is not None:
                self._execution.resize(*size)
        else:
            raise SystemExit(128 + number)

    def silence(self) -> Exit | None:
        """Return how the command ended if its guest does not answer; None, to go on waiting, if it does."""
        if self._execution.answers():
            return None
        return Exit(
            128 + max(self._asked, key=self._asked.__getitem__),
            "the shed does not answer, so its command was left alone",
        )

    def _pass_on(self, number: int) -> None:
        if number == _signal.SIGINT:
            if self._impatient():
                raise KeyboardInterrupt
        elif number in self._asked:
            if time.monotonic() - self._asked[number] < _TWICE:
                return
            raise SystemExit(128 + number)
        self._asked.setdefault(number, time.monotonic())
        self.patience = _SILENCE
        self._execution.signal(number)

    def _impatient(self) -> bool:
        now = time.monotonic()
        self._interrupts = [then for then in self._interrupts if now - then < _LEAVE_SECONDS] + [now]
        return len(self._interrupts) >= _LEAVE_COUNT


def _noted(number: int, frame: object) -> None:
    """Do nothing: the number has been written to the wakeup descriptor by now."""
