"""`shed stats`: what running sheds use of their host."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import argument, option
from shed.cli.command import command
from shed.cli.connection import client
from shed.errors import NotFoundError
from shed.terminal.output import emit, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options


@command(
    "stats",
    argument("NAME", "names of sheds (default: all that run)", offers="sheds", count="*"),
    option("--over", "TIME", "measure processor time for so long (default: 1s)", default=1.0, convert=values.duration),
    examples=["shed stats", "shed stats dev --over 10s"],
)
def stats(args: Any, options: Options) -> int:
    """Show what running sheds use: processors, memory and disk of their VMs, as the host sees them.

    CPU is in percent of one processor, MEMORY includes what VMs share.
    """
    import time

    server = client(options)
    began, before = time.monotonic(), {shed["name"]: shed for shed in server.stats()}
    time.sleep(args.over)
    passed, now = time.monotonic() - began, [shed for shed in server.stats() if shed["name"] in before]
    if missing := [name for name in args.name if name not in before]:
        raise NotFoundError(f"no shed {missing[0]!r} runs", code="SHED_NOT_FOUND", hint="see: shed list")
    found = [
        {**shed, "cpu_percent": round(100 * (shed["cpu_seconds"] - before[shed["name"]]["cpu_seconds"]) / passed, 1)}
        for shed in now
        if not args.name or shed["name"] in args.name
    ]
    if options.json:
        emit(found)
    else:
        say(table(["NAME", "CPU", "MEMORY", "DISK"], [_row(shed) for shed in found]), end="")
    return 0


def _row(shed: dict[str, Any]) -> list[str]:
    from shed.sizes import format_size

    return [
        shed["name"],
        f"{max(0.0, shed['cpu_percent']):.0f} % of {shed['cpus']}",
        f"{format_size(shed['memory_bytes'])} of {format_size(shed['memory_mb'] << 20)}",
        f"{format_size(shed['disk_bytes'])} of {format_size(shed['upper_size_bytes'])}",
    ]
