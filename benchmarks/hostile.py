"""A shed beside ten hostile ones: what they fork, eat, write and burn is theirs.

A command and the API answer nearly as without them.

The hostile VMs run and stand still (SIGCONT, SIGSTOP) in turn, so that both sides of a pair are measured a moment
apart.  Then they run in turn with the priority that they have, and with the server's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import command, compare, show
from benchmarks.world import SHED, shed, world

COUNT = 10
RUNS = 10
SHAPE = ("--image", "base", "--cpus", "1", "--memory", "256M", "--upper-size", "1G")
HOSTILE = (
    "bomb() { bomb | bomb & }; bomb; while :; do :; done",
    "while :; do head -c 200M /dev/zero | tail -n 1; done",
    "while :; do dd if=/dev/zero of=$HOME/full bs=1M conv=fsync; done",
    "while :; do :; done",
)
"""Forks, eats memory, writes, burns the processor."""


def main() -> None:
    """Print how a command and the API are slowed down."""
    with world({"qemu": {"warm_start": True}, "limits": {"memory_overcommit": 4}}):
        pids: list[int] = []
        try:
            shed("create", "quiet", *SHAPE)
            for number in range(COUNT):
                shed("create", f"hostile-{number}", *SHAPE)
            pids = [each["pid"] for each in json.loads(shed("list", "--json")) if each["name"] != "quiet"]
            for number in range(COUNT):
                script = f"({HOSTILE[number % len(HOSTILE)]}) >/dev/null 2>&1 </dev/null &"
                shed("exec", f"hostile-{number}", "--", "sh", "-c", script)
            for title, words in (("exec", ("exec", "quiet", "--", "true")), ("list", ("list", "--json"))):
                beside = command([SHED, *words], before=sending(pids, signal.SIGCONT))
                alone = command([SHED, *words], before=sending(pids, signal.SIGSTOP))
                show(
                    f"shed {title}, {COUNT} hostile sheds",
                    "running",
                    "standing still",
                    compare(beside, alone, runs=RUNS),
                )
            sending(pids, signal.SIGCONT)()
            if os.geteuid() == 0:
                lower = command([SHED, "exec", "quiet", "--", "true"], before=with_nice(pids, 5))
                same = command([SHED, "exec", "quiet", "--", "true"], before=with_nice(pids, 0))
                show(
                    f"shed exec beside {COUNT} hostile sheds",
                    "their priority",
                    "the server's",
                    compare(lower, same, runs=RUNS),
                )
        finally:
            sending(pids, signal.SIGCONT)()
            for each in json.loads(shed("list", "--json")):
                shed("delete", "--force", each["name"])


def sending(pids: list[int], number: signal.Signals) -> Callable[[], None]:
    """Return what sends a signal to all VMs."""

    def send() -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    return send


def with_nice(pids: list[int], nice: int) -> Callable[[], None]:
    """Return what gives all threads of all VMs, and their sessions, a priority."""

    def change() -> None:
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
            group = Path(f"/proc/{pid}/autogroup")
            if group.exists():
                group.write_text(str(nice))

    return change
