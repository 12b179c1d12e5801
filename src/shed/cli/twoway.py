"""`shed sync --two-way`: folders of this machine and of a shed, kept alike."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from shed.cli.connection import client_of
from shed.cli.output import done, shown
from shed.errors import BackendError, UnavailableError, UsageError
from shed.terminal.output import note, say
from shed.text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from shed.cli.options import Options
    from shed.client.sync.api import Api
    from shed.client.sync_rules import Rule
    from shed.client.twoway.carrying import Outcome
    from shed.client.twoway.channel import Channel
    from shed.client.twoway.pair import Pair
    from shed.client.twoway.reconcile import Plan
    from shed.progress import Event

CONFLICTS = 3
"""The exit code while there are conflicts."""
_SHOWN = 20
"""Names of a kind that are told for each pair of folders."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds between two tries to reach a shed."""
_PATIENCE = 10.0
"""Seconds that what is under way has to end."""


def two_way(args: Any, options: Options, rules: list[Rule]) -> int:
    """Keep the folders of `rules` alike; return the exit code."""
    from shed.progress import BytesEvent, PhaseEvent, WarningEvent

    server = client_of(args.name, options)
    with shown(options) as sink:
        pairs = list(_pairs(rules, server, args, lambda event: None if args.watch else sink(event)))
        if not args.watch:
            results = []
            for pair in pairs:
                pair.warn = lambda text: sink(WarningEvent(text))
                pair.on_bytes = lambda size: sink(BytesEvent("carried", size, None))
                sink(PhaseEvent("sync", f"{pair.rule.source} and {args.name}:{pair.rule.target}"))
                start = lambda: sink(PhaseEvent("start", f"Starting shed {args.name}..."))  # noqa: E731
                results.append((pair, *_once(pair, server, args, start)))
    if not args.watch:
        return _report(results, args, options)
    _Watching(pairs, server, args, options).run()
    return 0


def _pairs(rules: Iterable[Rule], server: Api, args: Any, sink: Callable[[Event], None]) -> Iterable[Pair]:
    from shed.client.mirroring import AbsentError
    from shed.client.twoway.pair import Pair
    from shed.progress import WarningEvent

    for rule in rules:
        try:
            yield Pair(
                rule,
                args.name,
                server=str(server.address),
                states_folder=Path("~/.shed/sync").expanduser(),
                also=[os.path.normpath(path) for path in args.also],
                force=args.force,
                warn=lambda text: note(f"warning: {text}"),
            )
        except AbsentError as error:
            sink(WarningEvent(error.message))


def _channel(server: Api, args: Any, on_start: Callable[[], None]) -> Channel:
    from shed.client.twoway.channel import ShedChannel

    return ShedChannel(server.address, args.name, user=args.user, on_start=on_start)


def _once(pair: Pair, server: Api, args: Any, on_start: Callable[[], None]) -> tuple[Plan, Outcome]:
    from shed.client.twoway.watching import once

    channel = _channel(server, args, on_start)
    try:
        return once(pair, channel, dry=args.dry_run)
    finally:
        channel.close()


class _Watching:
    """Keeps pairs alike, each in a thread, until ctrl-C or an error that trying again does not mend."""

    def __init__(self, pairs: list[Pair], server: Api, args: Any, options: Options) -> None:
        self._pairs = pairs
        self._server = server
        self._args = args
        self._options = options
        self._problems: list[BaseException] = []
        self._ended = threading.Event()
        self._stop, self._stopping = os.pipe()
        """The first can be read once it is to end."""

    def run(self) -> None:
        """Keep them alike.  Raises the first error that ends it."""
        threads = [threading.Thread(target=self._keep, args=(pair,), daemon=True) for pair in self._pairs]
        for thread in threads:
            thread.start()
        try:
            self._ended.wait()
        finally:
            os.close(self._stopping)
            for thread in threads:
                thread.join(_PATIENCE)
        for problem in self._problems:
            raise problem

    def _keep(self, pair: Pair) -> None:
        try:
            while not self._session(pair):
                pass
        except BaseException as error:  # noqa: BLE001  the other thread raises it
            self._problems.append(error)
        self._ended.set()

    def _session(self, pair: Pair) -> bool:
        """Keep a pair alike for as long as the connection lasts; return whether that was the end."""
        from shed.client.twoway.watching import Watch

        name = self._args.name
        channel = None
        try:
            channel = _channel(self._server, self._args, lambda: note(f"Starting shed {name}..."))
            Watch(pair, channel, lambda plan, outcome: self._told(pair, plan, outcome), self._stop).run(
                lambda: note(f"watching {pair.rule.source} and {name}:{pair.rule.target}; ctrl-C ends it")
            )
            return True
        except (BackendError, UnavailableError) as error:
            note(f"{error.message}; trying again")
        finally:
            if channel is not None:
                channel.close()
        return self._pause()

    def _pause(self) -> bool:
        """Wait until the shed runs, which is somebody else's affair; return whether it is to end meanwhile."""
        from shed.client.transport import ready

        pause = _FIRST_PAUSE
        while not ready([self._stop], [], pause)[0]:
            try:
                if self._server.shed(self._args.name)["status"] == "running":
                    return False
            except (BackendError, UnavailableError):
                pass
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _told(self, pair: Pair, plan: Plan, outcome: Outcome) -> None:
        quiet = (outcome.sent, outcome.received, outcome.deleted_here, outcome.deleted_there, outcome.aside)
        if any(quiet) or outcome.failed or outcome.left:
            _report([(pair, plan, outcome)], self._args, self._options)


def _report(results: list[tuple[Pair, Plan, Outcome]], args: Any, options: Options) -> int:
    """Say what was done, or would be; return the exit code."""
    rules = [_described(pair, plan, outcome, dry=args.dry_run) for pair, plan, outcome in results]
    if not options.json:
        for rule in rules:
            _tell(rule, dry=args.dry_run)
    counts = {key: sum(len(rule[key]) for rule in rules) for key in ("sent", "received", "deleted_there")}
    here = sum(len(rule["deleted_here"]) for rule in rules)
    conflicts = sum(len(rule["conflicts"]) for rule in rules)
    failed = sum(len(rule["failed"]) for rule in rules)
    options.json_lines = args.watch
    done(
        options,
        "sync",
        args.name,
        f"{'would send' if args.dry_run else 'sent'} {counts['sent']}, receive{'' if args.dry_run else 'd'} "
        f"{counts['received']}, delete{'' if args.dry_run else 'd'} {counts['deleted_there']} there and {here} here"
        + (f"; {conflicts} in conflict" if conflicts else "")
        + (f"; {failed} failed" if failed else ""),
        profile=args.profile,
        two_way=True,
        dry_run=args.dry_run,
        rules=rules,
    )
    return CONFLICTS if conflicts else int(bool(failed))


def _described(pair: Pair, plan: Plan, outcome: Outcome, *, dry: bool) -> dict[str, Any]:
    conflicts = [{"path": path, "kept_as": kept} for kept, path in pair.aside.items()]
    if dry:
        conflicts += [{"path": path, "kept_as": ""} for path in plan.aside]
    return {
        "from": str(pair.rule.source),
        "to": pair.rule.target,
        "sent": plan.carry[1] if dry else outcome.sent,
        "received": plan.carry[0] if dry else outcome.received,
        "deleted_here": plan.remove[0] if dry else outcome.deleted_here,
        "deleted_there": plan.remove[1] if dry else outcome.deleted_there,
        "bytes": outcome.bytes,
        "conflicts": conflicts,
        "left_out": [{"path": path, "why": why} for path, why in outcome.left.items()],
        "failed": [
            *({"path": path, "why": why} for path, why in outcome.failed.items()),
            *({"path": path, "why": "it changed all the time"} for path in sorted(outcome.again)),
        ],
    }


def _tell(rule: dict[str, Any], *, dry: bool) -> None:
    lines: list[tuple[str, list[str]]] = []
    if dry:
        lines += [(what, rule[key]) for what, key in (("send", "sent"), ("receive", "received"))]
        lines += [("delete there", rule["deleted_there"]), ("delete here", rule["deleted_here"])]
    lines.append(("conflict", [_conflict(each) for each in rule["conflicts"]]))
    lines += [(what, [f"{each['path']}: {each['why']}" for each in rule[what.replace(" ", "_")]])
              for what in ("left out", "failed")]  # fmt: skip
    for what, names in lines:
        for name in names[:_SHOWN]:
            (say if dry else note)(f"{what:<12}  {visible(name)}")
        if len(names) > _SHOWN:
            (say if dry else note)(f"{what:<12}  and {len(names) - _SHOWN} more")


def _conflict(each: dict[str, str]) -> str:
    return f"{each['path']}: the shed's is {each['kept_as'] or 'to be kept aside'}"


def check(args: Any) -> None:
    """Raise `UsageError` for options that do not go together."""
    if args.also and not args.two_way:
        raise UsageError("--also goes with --two-way", hint="one way, nothing is left out")
    from shed.client.dangers import is_repository

    for path in args.also:
        if any(map(is_repository, path.split("/"))):
            raise UsageError(
                f"--also {path}: a repository's own is never carried", hint="push and pull, or: shed apply"
            )
