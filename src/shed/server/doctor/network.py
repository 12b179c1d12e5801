"""What the relay of sheds' connections has to say, and which mirrors of packages sheds are given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shed.checks import Result, Status
from shed.egress import decisions
from shed.egress.netdfiles import DECISIONS
from shed.egress.process import NetdProcess
from shed.server.doctor.host import Host
from shed.sheds.mirrors import of_host
from shed.sizes import format_size


def egress_log(host: Host) -> Iterator[Result]:
    """The log of what was decided about connections: its size, who writes most of it, and whether it lacks entries."""
    path = host.paths.logs / DECISIONS
    detail = f"{format_size(decisions.size(path))} in {path} and its older files"
    counts = NetdProcess(host.paths.run, host.paths.logs).log_counts()
    if counts is None:
        yield Result("egress log", Status.PASS, f"{detail}; the relay does not run")
        return
    written, left_out = counts
    if written:
        most = max(written, key=lambda shed: written[shed])
        detail += f"; since the relay began, most is from {most}: {format_size(written[most])}"
    if missing := sum(left_out.values()):
        most = max(left_out, key=lambda shed: left_out[shed])
        what = f"{missing} entries are missing, {left_out[most]} of them of {most}: too many at once, or a full disk"
        yield Result("egress log", Status.WARN, f"{detail}; {what}", f"see what it tries: shed egress log {most}")
        return
    yield Result("egress log", Status.PASS, detail)


def sheds_network(host: Host) -> Iterator[Result]:
    """Sheds can have a network."""
    yield missing("network", host) or Result("network", Status.PASS, "each shed has one of its own")


def missing(name: str, host: Host) -> Result | None:
    """Return the row `name` that says why sheds have no network on this host; None where they have one."""
    networks = host.backend.capabilities.networks
    if networks is None:
        return Result(name, Status.WARN, f"the backend {host.backend.name} has no network for sheds")
    if problem := networks.problem():
        return Result(name, Status.FAIL, f"sheds have no network: {problem}", problem.next_step)
    return None


def mirrors(host: Host) -> Iterator[Result]:
    """What sheds get of this machine's settings for mirrors of packages, and what they do not; nothing without any."""
    if not host.settings.guest_mirrors:
        return
    found = of_host(os.environ, Path.home())
    if found.left_out:
        yield Result("mirrors", Status.WARN, "; ".join(found.left_out), "or set guest.mirrors: false in server.yaml")
    elif names := [*found.variables, *(["the proxy of apt"] if found.apt else [])]:
        detail = f"sheds get {', '.join(names)} of this machine; their egress rules must allow what these name"
        yield Result("mirrors", Status.PASS, detail)
