"""What the relay of sheds' connections has to say."""

from __future__ import annotations

from collections.abc import Iterator

from shed.checks import Result, Status
from shed.egress import decisions
from shed.egress.netdfiles import DECISIONS
from shed.egress.process import NetdProcess
from shed.server.doctor.host import Host
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
