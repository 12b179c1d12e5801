"""All checks at once, and the report of what they found, in their order."""

from __future__ import annotations

import json
import queue
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from shed.checks import Result, Status
from shed.server.doctor import limits, machine, network, service, storage
from shed.server.doctor.host import Check, Host
from shed.text import visible

CHECKS: tuple[tuple[str, Check], ...] = (
    ("vmm", machine.vmm),
    ("acceleration", machine.acceleration),
    ("jail", machine.jail),
    ("configuration", service.configuration),
    ("data folders", machine.data_folders),
    ("disk space", machine.disk_space),
    ("control groups", limits.control_groups),
    ("memory", limits.memory),
    ("pressure", limits.pressure),
    ("boot kit", storage.boot_kit),
    ("images", storage.images),
    ("kernels", storage.kernels),
    ("sheds", storage.sheds),
    ("templates", storage.templates),
    ("leftovers", storage.leftovers),
    ("network", network.sheds_network),
    ("egress log", network.egress_log),
    ("mirrors", network.mirrors),
    ("service", service.service),
    ("server", service.answers),
    ("ssh clients", service.ssh_clients),
)


_INDENT = 30
"""Characters before what was found: the name, the status, and the spaces behind them."""
SECONDS = 60.0
"""That a check may take, all of them being begun together."""
LONG = {"boot kit": 3600.0, "images": 3600.0, "templates": 3600.0}
"""The same for those that read all that is stored."""


def examine(host: Host, checks: Iterable[tuple[str, Check]] = CHECKS) -> Iterator[Result]:
    """Yield what each check finds, in the order of `checks`, which all begin at once.

    Raises nothing: a check that breaks off, or is not done in its time, is a FAIL, and the others go on.
    """
    for one in [_Examination(name, check, host) for name, check in checks]:
        yield from one.rows()


class _Examination:
    """A check at work.  Nobody waits for its thread: one that hangs ends with the program."""

    def __init__(self, name: str, check: Check, host: Host) -> None:
        self._name = name
        self._begun = time.monotonic()
        self._found: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, args=(check, host), name=f"doctor: {name}", daemon=True).start()

    def rows(self) -> Iterator[Result]:
        """Yield its rows as it finds them, until it is done or its time is up."""
        seconds = LONG.get(self._name, SECONDS)
        while True:
            try:
                row = self._found.get(timeout=max(0.0, self._begun + seconds - time.monotonic()))
            except queue.Empty:
                yield Result(
                    self._name, Status.FAIL, f"it was not done within {seconds:g} s", "look at the disks, and try again"
                )
                return
            if row is None:
                return
            yield row

    def _work(self, check: Check, host: Host) -> None:
        try:
            for row in check(host):
                self._found.put(row)
        except Exception as error:  # noqa: BLE001  a doctor does not faint
            self._found.put(Result.of(self._name, error))
        self._found.put(None)


def summary(results: Sequence[Result]) -> dict[Status, int]:
    """Return how many rows there are of each status."""
    return {status: sum(result.status is status for result in results) for status in Status}


def as_text(results: Sequence[Result], width: int | None = None) -> str:
    """Return the report for people: a line of counts, then a line for each row.

    On a terminal of so many columns as `width`, long ones go on below where they begin; words stay whole.
    """
    counts = ", ".join(f"{count} {status}" for status, count in summary(results).items())
    rows = [f"{result.name:<24} {result.status} {_line(result)}" for result in results]
    if width is not None and width >= 2 * _INDENT:
        wrapper = textwrap.TextWrapper(
            width, subsequent_indent=" " * _INDENT, break_long_words=False, break_on_hyphens=False
        )
        rows = [wrapper.fill(row) for row in rows]
    return "\n".join([f"shed-server doctor: {counts}", *rows]) + "\n"


def as_json(results: Sequence[Result]) -> str:
    """Return the report for programs."""
    return json.dumps({"summary": summary(results), "checks": [asdict(result) for result in results]}, indent=2) + "\n"


def _line(result: Result) -> str:
    """Return detail and hint in one line, without what a terminal would obey."""
    return visible(" ".join(f"{result.detail}; {result.hint}".split() if result.hint else result.detail.split()))
