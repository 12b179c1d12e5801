"""`shed forward`, and what it has in common with `shed tunnels`: forwarding until somebody asks for an end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from shed.cli.connection import client_of
from shed.cli.options import Options
from shed.cli.parsing import Parser
from shed.client.address import Address
from shed.client.forward import Forwarder, Rule, distinct, parse_rule
from shed.errors import UnavailableError
from shed.terminal.output import emit, note, say

Forwards = list[dict[str, object]]
"""What is forwarded: ``address`` and ``port`` of this machine, and the shed's ``remote`` port."""


def forward(words: list[str], options: Options) -> int:
    """Forward ports of this machine to a shed until ctrl-C."""
    parser = Parser(
        "forward",
        "Forward ports of this machine to ports of a shed's loopback, until ctrl-C.  What is to stay open: shed "
        "tunnels.",
        examples=["shed forward dev 3000", "shed forward dev 8080:80 :5432", "shed forward dev 80 --address 192.0.2.7"],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "ports", metavar="[LOCAL:]PORT", nargs="+", help="port of the shed, and the local one (default: the same)"
    )
    parser.add_argument(
        "--address", metavar="HOST", action="append", help="address to listen on (default: localhost); can be repeated"
    )
    args = parser.parse(words, options)
    rules = distinct([parse_rule(port, host=host) for host in args.address or [None] for port in args.ports])
    address = running_shed(args.name, options)
    run(address, args.name, rules, ready=lambda forwards: show(forwards, options), say=note)
    return 0


def running_shed(name: str, options: Options) -> Address:
    """Return the address of the server that has the shed `name`.

    Raises `UnavailableError` (SHED_NOT_RUNNING), `NotFoundError`.
    """
    server = client_of(name, options)
    if server.shed(name).status == "stopped":
        raise UnavailableError(
            f"shed {name!r} is not running", code="SHED_NOT_RUNNING", hint=f"start it: shed start {name}"
        )
    return server.address


def local_end(forward: dict[str, object]) -> str:
    """Return where one of `Forwards` listens, as people write it: ``127.0.0.1:80``, ``[::1]:80``."""
    host = str(forward["address"])
    return f"{f'[{host}]' if ':' in host else host}:{forward['port']}"


def show(forwards: Forwards, options: Options) -> None:
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
    asyncio.run(_run(address, shed, rules, ready, say))


async def _run(
    address: Address, shed: str, rules: Sequence[Rule], ready: Callable[[Forwards], None], say: Callable[[str], None]
) -> None:
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
