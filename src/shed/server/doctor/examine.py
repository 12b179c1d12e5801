"""All checks in order, and the report of what they found."""

from __future__ import annotations

import json
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
    ("egress log", network.egress_log),
    ("service", service.service),
    ("server", service.answers),
    ("ssh clients", service.ssh_clients),
)


def examine(host: Host, checks: Iterable[tuple[str, Check]] = CHECKS) -> Iterator[Result]:
    """Yield what each check finds.  Raises nothing: a check that breaks off is a FAIL, and the others go on."""
    for name, check in checks:
        try:
            yield from check(host)
        except Exception as error:  # noqa: BLE001  a doctor does not faint
            yield Result.of(name, error)


def summary(results: Sequence[Result]) -> dict[Status, int]:
    """Return how many rows there are of each status."""
    return {status: sum(result.status is status for result in results) for status in Status}


def as_text(results: Sequence[Result]) -> str:
    """Return the report for people: a line of counts, then a line for each row."""
    counts = ", ".join(f"{count} {status}" for status, count in summary(results).items())
    rows = [f"{result.name:<24} {result.status} {_line(result)}" for result in results]
    return "\n".join([f"shed-server doctor: {counts}", *rows]) + "\n"


def as_json(results: Sequence[Result]) -> str:
    """Return the report for programs."""
    return json.dumps({"summary": summary(results), "checks": [asdict(result) for result in results]}, indent=2) + "\n"


def _line(result: Result) -> str:
    """Return detail and hint in one line, without what a terminal would obey."""
    return visible(" ".join(f"{result.detail}; {result.hint}".split() if result.hint else result.detail.split()))
