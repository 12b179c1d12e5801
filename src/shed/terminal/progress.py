"""Progress on the terminal: one live line, and one for each blob on its way; plain lines where there is no terminal.

With ``--json`` there is nothing but warnings.
"""

from __future__ import annotations

import os
import sys
import time

from shed.progress import BlobEvent, BytesEvent, OutputEvent, PhaseEvent, WarningEvent, on_wait
from shed.sizes import format_size
from shed.text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from typing import TextIO

    from shed.progress import Event

_TICK = 0.1
_FRAMES = "|/-\\"
_BAR = 24
_PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines about one transfer."""


class shown:  # noqa: N801  used as a function is, as contextlib's are; that takes longer to import than this
    """Yields a function that shows progress events on `stream` (default: standard error) until the block ends.

    A terminal gets lines that are drawn over and erased at the end, everything else plain lines.  With `json` only
    warnings are shown, each as one JSON object on its line; with `verbose` also what programs in sheds say.
    """

    def __init__(self, *, json: bool = False, verbose: bool = False, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        self._token: Token[Callable[[str], None]] | None = None
        self._json = json
        self._live = None if json else _live(stream)
        show: Callable[[Event], None] = self._live or (JsonLines(stream) if json else PlainLines(stream))
        self._sink = show if verbose else lambda event: None if isinstance(event, OutputEvent) else show(event)

    def __enter__(self) -> Callable[[Event], None]:
        if self._live is not None:
            self._live.__enter__()
        self._token = on_wait.set(self._wait)
        return self._sink

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        on_wait.reset(self._token)
        if self._live is not None:
            self._live.__exit__()

    def _wait(self, what: str) -> None:
        """Show that somebody else is waited for, in JSON too."""
        self._sink(WarningEvent(what) if self._json else PhaseEvent("wait", what))


class waiting:  # noqa: N801  as above
    """Shows `message` while the block lasts, once that is longer than `seconds`; with `json` nothing.

    For what tells nothing of its progress.  `stream` is as for `shown`.
    """

    def __init__(self, message: str, *, json: bool, stream: TextIO | None = None, seconds: float = 1.0) -> None:
        import threading  # noqa: PLC0415  few commands wait

        self._message = message
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._over = json
        self._live: LiveLines | None = None
        self._timer = threading.Timer(seconds, self._show)
        self._timer.daemon = True

    def __enter__(self) -> None:
        if not self._over:
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._live is not None:
                self._live.__exit__()

    def _show(self) -> None:
        with self._lock:
            if self._over:
                return
            event = PhaseEvent("wait", self._message)
            self._live = _live(self._stream)
            if self._live is not None:
                self._live.__enter__()(event)
            else:
                PlainLines(self._stream)(event)


def _live(stream: TextIO) -> LiveLines | None:
    """Return what draws on a terminal; None where there is none that can be drawn on."""
    return LiveLines(stream) if stream.isatty() and os.environ.get("TERM") != "dumb" else None


class JsonLines:
    """One JSON object on its line for each warning, as for errors; nothing for other events."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        import json  # noqa: PLC0415  few commands warn

        if isinstance(event, WarningEvent):
            self._stream.write(json.dumps({"warning": event.message}) + "\n")
            self._stream.flush()


class PlainLines:
    """One line per phase, warning, and blob that is here; for a long transfer, one now and then."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last = clock()

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        if isinstance(event, PhaseEvent):
            self._line(event.message)
        elif isinstance(event, WarningEvent):
            self._line(f"warning: {event.message}")
        elif isinstance(event, OutputEvent):
            self._line(f"  {event.line}")
        elif isinstance(event, BlobEvent):
            if event.status != "downloading":
                self._line(
                    f"{_name(event)}: {format_size(event.current)}{', was here' if event.status == 'exists' else ''}"
                )
        elif self._clock() - self._last >= _PLAIN_INTERVAL:
            self._line(f"{event.label}: {amount(event)}")

    def _line(self, text: str) -> None:
        self._last = self._clock()
        self._stream.write(visible(text) + "\n")
        self._stream.flush()


class LiveLines:
    """A line that is redrawn all the time: the current phase, how far it is, and for how long.

    Below it is one line for each blob that is being transferred.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        import threading  # noqa: PLC0415  for terminals alone

        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._message = ""
        self._bytes: BytesEvent | None = None
        self._blobs: dict[str, BlobEvent] = {}
        self._below = 0
        """Lines drawn below the first one."""
        self._frame = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> LiveLines:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()
        self._stream.write(self._erased())
        self._stream.flush()

    def __call__(self, event: Event) -> None:
        """Show `event`: at once when the line changes its subject, else at the next tick."""
        with self._lock:
            if isinstance(event, BytesEvent):
                self._bytes = event
                return
            if isinstance(event, BlobEvent):
                self._blobs[event.digest] = event
                if event.status != "downloading":
                    del self._blobs[event.digest]
                return
            if isinstance(event, WarningEvent | OutputEvent):
                text = f"  {event.line}" if isinstance(event, OutputEvent) else f"warning: {event.message}"
                self._stream.write(f"{self._erased()}{visible(text)}\n")
            else:
                self._message, self._bytes, self._blobs, self._start = event.message, None, {}, self._clock()
            self._draw()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK):
            with self._lock:
                self._frame += 1
                self._draw()

    def _draw(self) -> None:
        columns, rows = _terminal_size(self._stream)
        first = line(self._message, self._bytes, self._clock() - self._start, _FRAMES[self._frame % len(_FRAMES)])
        lines = [first, *map(blob_line, self._blobs.values())][: max(1, rows - 1)]
        self._stream.write(self._erased() + "\n".join(text[: columns - 1] for text in lines))
        self._stream.flush()
        self._below = len(lines) - 1

    def _erased(self) -> str:
        """Return what puts the cursor where the first line began, with nothing behind it."""
        up = f"\x1b[{self._below}A" if self._below else ""
        self._below = 0
        return f"\r{up}\x1b[J"


def _terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return (columns, rows) of a terminal, 80 and 24 when it does not know."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, rows = 0, 0
    return columns or 80, rows or 24


def line(message: str, transfer: BytesEvent | None, elapsed: float, frame: str) -> str:
    """Return the text of the first live line; `elapsed` is in seconds."""
    parts = [f"{frame} {visible(message)}"]
    if transfer is not None:
        parts += _bar(transfer)
    if elapsed >= 1:
        parts.append(f"{elapsed:.0f}s")
    return "  ".join(parts)


def blob_line(blob: BlobEvent) -> str:
    """Return the text of the live line of a blob."""
    return "  ".join([f"  {_name(blob):<24}", *_bar(blob)])


def _name(blob: BlobEvent) -> str:
    return visible(f"{blob.label} {blob.digest.removeprefix('sha256:')[:12]}")


def _bar(transfer: BytesEvent | BlobEvent) -> list[str]:
    if not transfer.total:
        return [amount(transfer)]
    filled = min(_BAR, _BAR * transfer.current // transfer.total)
    return [f"[{'=' * filled}{' ' * (_BAR - filled)}]", amount(transfer)]


def amount(transfer: BytesEvent | BlobEvent) -> str:
    """Return how far a transfer is, for people."""
    if transfer.total:
        return f"{format_size(transfer.current)} of {format_size(transfer.total)}"
    return format_size(transfer.current)
