"""`shed tunnels start | stop | list | config`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

from shed.cli.app import Command, dispatch
from shed.cli.forward import Forwards, local_end, run, running_shed, show
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.client import tunnels
from shed.client.address import Address
from shed.client.config import resolve
from shed.client.forward import Rule, distinct, parse_rule
from shed.client.tunnels import DEFAULT_PROFILE, Tunnels
from shed.errors import ShedError, UsageError
from shed.terminal.output import age, emit, note, say, table

COMMANDS = {
    "start": Command("shed.cli.tunnels:start", "open the tunnels of a profile, or named ones"),
    "stop": Command("shed.cli.tunnels:stop", "close tunnels that are open in the background"),
    "list": Command("shed.cli.tunnels:list_tunnels", "list the tunnels that are open"),
    "ls": Command("shed.cli.tunnels:list_tunnels", "", "list"),
    "config": Command("shed.cli.tunnels:config", "show the profiles, and where they are kept"),
}
_READY_TIMEOUT = 30.0


def main(words: list[str], options: Options) -> int:
    """Run a command about tunnels."""
    return dispatch(
        COMMANDS, words, options, prefix="tunnels ", about="Ports of this machine that lead to ports of a shed."
    )


def start(words: list[str], options: Options) -> int:
    """Open tunnels, in the foreground or the background."""
    parser = Parser(
        "tunnels start",
        "Open tunnels to a shed: those of a profile in ~/.shed/tunnels.yaml, or those named.  Without -d they are "
        "open until ctrl-C.",
        examples=[
            "shed tunnels start dev",
            "shed tunnels start dev -t 3000 -t 8080:80 -d",
            "shed tunnels start dev -p db -d --replace",
        ],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-p", "--profile", metavar="PROFILE", help=f"profile to open (default without -t: {DEFAULT_PROFILE})"
    )
    parser.add_argument(
        "-t", "--tunnel", metavar="[LOCAL:]PORT", action="append", default=[], help="port to open; can be repeated"
    )
    parser.add_argument("-d", "--detach", action="store_true", help="in the background; returns when they are open")
    parser.add_argument("--replace", action="store_true", help="close those to this shed that are open already")
    args = parser.parse(words, options)
    rules = [parse_rule(text) for text in args.tunnel]
    if args.profile is not None or not rules:
        rules = tunnels.profile(args.profile or DEFAULT_PROFILE) + rules
    distinct(rules)
    address = running_shed(args.name, options)
    mine = Tunnels.of(args.name, address)
    if args.replace:
        mine.stop()
    elif mine.pid() is not None:
        raise mine.running()
    if args.detach:
        pid, forwards = _detach(mine, address, rules)
        if options.json:
            emit({"status": "ok", "action": "start", "name": args.name, "pid": pid, "forwards": forwards})
        else:
            show(forwards, options)
        return 0
    hold(mine, address, rules, options)
    return 0


def hold(mine: Tunnels, address: Address, rules: list[Rule], options: Options) -> None:
    """Keep tunnels open in this process until it is told to end."""
    held = mine.hold()

    def ready(forwards: Forwards) -> None:
        mine.record(forwards, str(address))
        show(forwards, options)

    run(address, mine.shed, rules, ready=ready, say=note)
    os.close(held)


def stop(words: list[str], options: Options) -> int:
    """Close tunnels."""
    parser = Parser("tunnels stop", "Close the tunnels to a shed, or all that are open.")
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("--all", action="store_true", help="those to all sheds")
    args = parser.parse(words, options)
    if (args.name is None) != args.all:
        raise UsageError("name a shed, or say --all", hint="shed tunnels list")
    server = None if options.server is None else Tunnels.of("", resolve(options.server, config=options.config)).server
    meant = [one for one in tunnels.known() if args.name in (None, one.shed) and server in (None, one.server)]
    stopped = [f"{one.shed}" for one in meant if one.stop()]
    sentence = f"closed the tunnels to {', '.join(stopped)}" if stopped else "no tunnels were open"
    done(options, "stop", args.name or "", sentence, stopped=stopped)
    return 0


def list_tunnels(words: list[str], options: Options) -> int:
    """List the tunnels that are open."""
    Parser("tunnels list", "List the tunnels that are open on this machine.").parse(words, options)
    found = [(one, pid, one.recorded()) for one in tunnels.known() if (pid := one.pid()) is not None]
    if options.json:
        emit(
            [
                {
                    "shed": one.shed,
                    "server": one.server_as_named(about),
                    "pid": pid,
                    "forwards": about.get("forwards", []),
                }
                for one, pid, about in found
            ]
        )
        return 0
    rows = []
    for one, pid, about in found:
        since = datetime.fromtimestamp(about.get("since", 0), UTC).isoformat()
        ways = [(local_end(way), str(way["remote"])) for way in about.get("forwards", [])]
        rows += [[one.shed, one.server_as_named(about), *way, str(pid), age(since)] for way in ways]
    say(table(["SHED", "SERVER", "LOCAL", "PORT", "PID", "OPEN SINCE"], rows), end="")
    return 0


def config(words: list[str], options: Options) -> int:
    """Show the profiles."""
    Parser("tunnels config", "Show the profiles of ~/.shed/tunnels.yaml, as they are understood.").parse(words, options)
    found = tunnels.profiles()
    path = tunnels.folder().with_suffix(".yaml")
    if options.json:
        emit({"path": str(path), "profiles": {name: [str(rule) for rule in rules] for name, rules in found.items()}})
        return 0
    if not found:
        note(f"no profiles; write some into {path}, for example: profiles: {{default: [3000]}}")
    say(table(["PROFILE", "TUNNELS"], [[name, " ".join(map(str, rules))] for name, rules in found.items()]), end="")
    return 0


def _detach(mine: Tunnels, address: Address, rules: list[Rule]) -> tuple[int, Forwards]:
    """Start a process of its own session that keeps the tunnels open; return when they are.

    Raises what kept it from that.
    """
    tunnels.folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    plan = {"shed": mine.shed, "server": mine.server, "address": str(address), "rules": [str(rule) for rule in rules]}
    hear, tell = os.pipe()
    with open(hear, "rb") as answer, mine.file("log").open("ab") as log:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "shed.cli.tunnel_process", str(tell), json.dumps(plan)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(tell,),
                start_new_session=True,
            )
        finally:
            os.close(tell)
        told = answer.read()
    process.returncode = 0  # it lives on; its Popen object must not mind
    try:
        value = json.loads(told)
    except ValueError:
        raise ShedError(
            "the process of the tunnels ended at once", code="TUNNELS_FAILED", hint=f"its log is {mine.file('log')}"
        ) from None
    if "error" in value:
        error = ShedError(value["error"], code=value["code"], hint=value["hint"])
        error.exit_code = value["exit_code"]
        raise error
    return process.pid, value["forwards"]
