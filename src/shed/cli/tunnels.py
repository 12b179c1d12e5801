"""`shed forward`, and `shed tunnels start | stop | list | config`: ports of this machine that lead to a shed."""

from __future__ import annotations

import os
import sys

from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client_of
from shed.cli.output import done
from shed.errors import ShedError, UnavailableError, UsageError, heard
from shed.terminal.output import age, emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from shed.cli.options import Options
    from shed.client.address import Address
    from shed.client.forward import Rule
    from shed.client.sync.api import Api
    from shed.client.tunnels import Tunnels

    Forwards = list[dict[str, object]]
    """What is forwarded: ``address`` and ``port`` of this machine, and the shed's ``remote`` port."""

_PORT = "port of the shed, and before it the local port (default: the same; empty: any free port)"
tunnels = Group(
    "tunnels",
    "Ports of this machine that lead to ports of a shed, also in the background.",
    {
        "start": Entry("shed.cli.tunnels:start", "open the tunnels of a profile, or the ones that are named"),
        "stop": Entry("shed.cli.tunnels:stop", "close tunnels that are open in the background"),
        "list": Entry("shed.cli.tunnels:list_tunnels", "list the tunnels that are open"),
        "ls": Entry("shed.cli.tunnels:list_tunnels", "", "list"),
        "config": Entry("shed.cli.tunnels:config", "show the profiles, and where they are kept"),
    },
)


@command(
    "forward",
    SHED,
    argument("[LOCAL:]PORT", _PORT, key="ports", count="+"),
    option("--address", "HOST", "address to listen on (default: localhost); can be repeated", repeat=True),
    examples=["shed forward dev 3000", "shed forward dev 8080:80 :5432", "shed forward dev 80 --address 192.0.2.7"],
)
def forward(args: Any, options: Options) -> int:
    """Forward ports of this machine to ports of a shed's loopback interface, until ctrl-C.

    To keep ports open in the background, use: shed tunnels start
    """
    from shed.client.forward import distinct, parse_rule

    rules = distinct([parse_rule(port, host=host) for host in args.address or [None] for port in args.ports])
    address = running_shed(args.name, options).address
    run(address, args.name, rules, ready=lambda forwards: _show(forwards, options), say=note)
    return 0


@command(
    "tunnels start",
    SHED,
    option("-p, --profile", "PROFILE", "profile to open (default without -t: default)"),
    option("-t, --tunnel", "[LOCAL:]PORT", f"{_PORT}; can be repeated", repeat=True),
    flag("-d, --detach", "go to the background when the tunnels are open"),
    flag("--replace", "first close the tunnels to this shed that are open"),
    examples=[
        "shed tunnels start dev",
        "shed tunnels start dev -t 3000 -t 8080:80 -d",
        "shed tunnels start dev -p db -d --replace",
    ],
)
def start(args: Any, options: Options) -> int:
    """Open tunnels to a shed: those of a profile in ~/.shed/tunnels.yaml, or the ones that are named.

    Without -d they are open until ctrl-C.
    """
    from shed.client.forward import distinct, parse_rule
    from shed.client.tunnels import DEFAULT_PROFILE, Tunnels, profile

    rules = [parse_rule(text) for text in args.tunnel]
    if args.profile is not None or not rules:
        rules = profile(args.profile or DEFAULT_PROFILE) + rules
    distinct(rules)
    address = running_shed(args.name, options).address
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
            _show(forwards, options)
        return 0
    _hold(mine, address, rules, options)
    return 0


def _hold(mine: Tunnels, address: Address, rules: list[Rule], options: Options) -> None:
    """Keep tunnels open in this process until it is told to end."""
    held = mine.hold()

    def ready(forwards: Forwards) -> None:
        mine.record(forwards, str(address))
        _show(forwards, options)

    run(address, mine.shed, rules, ready=ready, say=note)
    os.close(held)


@command(
    "tunnels stop",
    argument("NAME", "name of the shed", count="?", offers="sheds"),
    flag("--all", "close the tunnels to all sheds"),
)
def stop(args: Any, options: Options) -> int:
    """Close the tunnels to a shed, or all that are open."""
    from shed.client.config import resolve
    from shed.client.tunnels import Tunnels, known

    if (args.name is None) != args.all:
        raise UsageError("name a shed, or use --all", hint="shed tunnels list")
    server = None if options.server is None else Tunnels.of("", resolve(options.server, config=options.config)).server
    meant = [one for one in known() if args.name in (None, one.shed) and server in (None, one.server)]
    stopped = [f"{one.shed}" for one in meant if one.stop()]
    sentence = f"closed the tunnels to {', '.join(stopped)}" if stopped else "no tunnels were open"
    done(options, "stop", args.name or "", sentence, stopped=stopped)
    return 0


@command("tunnels list")
def list_tunnels(args: Any, options: Options) -> int:
    """List the tunnels that are open on this machine."""
    from datetime import UTC, datetime

    from shed.client.tunnels import known

    found = [(one, pid, one.recorded()) for one in known() if (pid := one.pid()) is not None]
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
        ends = [(local_end(one_of), str(one_of["remote"])) for one_of in about.get("forwards", [])]
        rows += [[one.shed, one.server_as_named(about), *end, str(pid), age(since)] for end in ends]
    say(table(["SHED", "SERVER", "LOCAL", "PORT", "PID", "OPEN SINCE"], rows), end="")
    return 0


@command("tunnels config")
def config(args: Any, options: Options) -> int:
    """Show the profiles of ~/.shed/tunnels.yaml, as shed understands them."""
    from shed.client.tunnels import folder, profiles

    found = profiles()
    path = folder().with_suffix(".yaml")
    if options.json:
        emit({"path": str(path), "profiles": {name: [str(rule) for rule in rules] for name, rules in found.items()}})
        return 0
    if not found:
        note(f"no profiles; write some into {path}, for example: profiles: {{default: [3000]}}")
    say(table(["PROFILE", "TUNNELS"], [[name, " ".join(map(str, rules))] for name, rules in found.items()]), end="")
    return 0


def _detach(mine: Tunnels, address: Address, rules: list[Rule]) -> tuple[int, Forwards]:
    """Start a process in a session of its own that keeps the tunnels open.

    Return its process id and what it forwards when they are open.  Raises the `ShedError` that it ended with.
    """
    import json
    import subprocess

    from shed.client.tunnels import folder

    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
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
        raise heard(value["error"], code=value["code"], hint=value["hint"])
    return process.pid, value["forwards"]


def running_shed(name: str, options: Options) -> Api:
    """Return the client of the server that has the shed `name`.

    Raises `UnavailableError` (SHED_NOT_RUNNING), `NotFoundError`.
    """
    server = client_of(name, options)
    if server.shed(name).get("status") == "stopped":
        raise UnavailableError(
            f"shed {name!r} is not running", code="SHED_NOT_RUNNING", hint=f"start it: shed start {name}"
        )
    return server


def local_end(forward: dict[str, object]) -> str:
    """Return where one of `Forwards` listens, as people write it: ``127.0.0.1:80``, ``[::1]:80``."""
    host = str(forward["address"])
    return f"{f'[{host}]' if ':' in host else host}:{forward['port']}"


def _show(forwards: Forwards, options: Options) -> None:
    """Say what is forwarded now."""
    if options.json:
        emit({"forwards": forwards})
    else:
        for one in forwards:
            say(f"Forwarding from {local_end(one)} -> {one['remote']}", flush=True)


def run(
    address: Address, shed: str, rules: Sequence[Rule], *, ready: Callable[[Forwards], None], say: Callable[[str], None]
) -> None:
    """Forward until SIGINT, SIGTERM or SIGHUP; open connections are dropped then.

    `ready` is called when all ports are open, `say` with a sentence when connections begin to fail, and when they work
    again.  Raises `ShedError` when a port cannot be opened.
    """
    import asyncio

    asyncio.run(_run(address, shed, rules, ready, say))


async def _run(
    address: Address, shed: str, rules: Sequence[Rule], ready: Callable[[Forwards], None], say: Callable[[str], None]
) -> None:
    import asyncio
    import signal

    from shed.client.forward import Forwarder

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    forwarder = Forwarder(address, shed, say=say)
    try:
        forwards: Forwards = []
        for rule in rules:
            forwards += [
                {"address": host, "port": port, "remote": rule.remote} for host, port in await forwarder.listen(rule)
            ]
        ready(forwards)
        await stop.wait()
    finally:
        await forwarder.close()
