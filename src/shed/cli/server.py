"""`shed server status | start | stop`; the others are in `shed.cli.servers` and `shed.cli.dial`."""

from __future__ import annotations

import os

from shed.cli.app import Command, dispatch
from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.client.client import Client
from shed.client.config import resolve
from shed.client.failures import other_version
from shed.client.local import start_server, wait_stopped
from shed.client.transport import NotRunningError, is_running
from shed.errors import UsageError
from shed.names import LOCAL
from shed.terminal.output import emit, note, say

COMMANDS = {
    "status": Command("shed.cli.server:status", "say whether the server runs, and what it is"),
    "start": Command("shed.cli.server:start", "start the local server; other commands do it when they need it"),
    "stop": Command("shed.cli.server:stop", "stop the local server; running sheds stay"),
    "add": Command("shed.cli.servers:add", "add a server on another machine to the client's configuration"),
    "list": Command("shed.cli.servers:list_servers", "list the servers of the configuration"),
    "ls": Command("shed.cli.servers:list_servers", "", "list"),
    "remove": Command("shed.cli.servers:remove", "take a server out of the configuration"),
    "rm": Command("shed.cli.servers:remove", "", "remove"),
    "set-default": Command("shed.cli.servers:choose", "make a server the default"),
    "dial-stdio": Command("shed.cli.dial:dial_stdio", "carry one connection for a client of an ssh:// address"),
}


def main(words: list[str], options: Options) -> int:
    """Run a command about the server."""
    return dispatch(
        COMMANDS,
        words,
        options,
        prefix="server ",
        about="The servers that host the sheds: this machine's own, and others.",
    )


def status(words: list[str], options: Options) -> int:
    """Say whether the server runs; exit code 1 when it does not."""
    Parser("server status", "Say whether the server runs, and what it is.  Exit code 1 when it does not run.").parse(
        words, options
    )
    server = client(options)
    try:
        info = server.info(start=False)
    except NotRunningError:
        if options.json:
            emit({"running": False, "address": str(server.address)})
        else:
            say(f"not running ({server.address})")
        return 1
    if options.json:
        emit({"running": True, "address": str(server.address), **info})
        return 0
    say(f"running ({server.address})")
    width = max(map(len, info), default=0)
    for key, value in info.items():
        if isinstance(value, str | int | float):
            say(f"  {key:<{width}}  {value}")
    if warning := other_version(info.get("version")):
        note(f"warning: {warning}")
    return 0


def start(words: list[str], options: Options) -> int:
    """Start the local server."""
    Parser("server start", "Start the local server, detached.").parse(words, options)
    server = _own(options)
    started = start_server(lambda: is_running(server.address))
    done(
        options,
        "start",
        "server",
        "started the server" if started else "the server is running already",
        started=started,
    )
    return 0


def stop(words: list[str], options: Options) -> int:
    """Stop the local server."""
    Parser("server stop", "Stop the local server.  Running sheds stay, and the next server finds them again.").parse(
        words, options
    )
    server = _own(options)
    try:
        pid = server.info(start=False).get("pid")  # told on its own machine only
        server.stop_server()
        wait_stopped(lambda: is_running(server.address), pid if isinstance(pid, int) else None)
        stopped = True
    except NotRunningError:
        stopped = False
    done(options, "stop", "server", "stopped the server" if stopped else "the server was not running", stopped=stopped)
    return 0


def _own(options: Options) -> Client:
    """Return the client of this machine's own server, or of the one that was named.

    The default of the configuration does not count.
    """
    named = options.server or os.environ.get("SHED_SERVER")
    server = Client(resolve(named or LOCAL, config=options.config))
    if not (server.address.local or server.address.path):
        raise UsageError(f"{server.address} is not on this machine", hint="start and stop it there: shed-server serve")
    return server
