"""`shed server`: the local server's life, and the servers that the client's configuration knows."""

from __future__ import annotations

import os
import sys

from shed.cli import values
from shed.cli.arguments import argument, flag, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client
from shed.cli.output import done, waiting
from shed.errors import ConflictError, NotFoundError, ShedError, UnavailableError, UsageError
from shed.terminal.output import emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from shed.cli.options import Options
    from shed.client.address import Address
    from shed.client.config import Config
    from shed.client.sync.api import Api

_LONGEST_TOKEN = 4096
_LOCAL_TIMEOUT = 1.0
"""Seconds that this machine's own server has to say its port: nobody waits for one that hangs."""
_CHUNK = 1 << 16

servers = Group(
    "server",
    "The servers that host the sheds: this machine's own, and others.",
    {
        "status": Entry("shed.cli.server:status", "say whether the server runs, and its version and settings"),
        "start": Entry("shed.cli.server:start", "start the local server; other commands do so when they need it"),
        "stop": Entry("shed.cli.server:stop", "stop the local server; running sheds stay"),
        "add": Entry("shed.cli.server:add", "add a server on another machine to the client's configuration"),
        "list": Entry("shed.cli.server:list_servers", "list the servers of the configuration"),
        "ls": Entry("shed.cli.server:list_servers", "", "list"),
        "remove": Entry("shed.cli.server:remove", "remove a server from the configuration"),
        "rm": Entry("shed.cli.server:remove", "", "remove"),
        "set-default": Entry("shed.cli.server:set_default", "make a server the default"),
        "dial-stdio": Entry("shed.cli.server:dial_stdio", "carry one connection for a client of an ssh:// address"),
    },
)


@command("server status")
def status(args: Any, options: Options) -> int:
    """Say whether the server runs, and its version and settings.  The exit code is 1 when it does not run."""
    from shed.client.failures import other_version
    from shed.client.transport import NotRunningError

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


@command("server start")
def start(args: Any, options: Options) -> int:
    """Start the local server in the background."""
    from shed.client.local import start_server
    from shed.client.transport import is_running

    server = _own(options)
    with waiting(options, "starting the server"):
        started = start_server(lambda: is_running(server.address))
    done(
        options,
        "start",
        "server",
        "started the server" if started else "the server is running already",
        started=started,
    )
    return 0


@command("server stop")
def stop(args: Any, options: Options) -> int:
    """Stop the local server.  Running sheds stay, and the next server finds them again."""
    stopped = stop_own(options)
    done(options, "stop", "server", "stopped the server" if stopped else "the server was not running", stopped=stopped)
    return 0


def stop_own(options: Options) -> bool:
    """Stop this machine's own server and wait until it has ended; return whether it ran."""
    from shed.client.local import wait_stopped
    from shed.client.transport import NotRunningError, is_running

    server = _own(options)
    try:
        pid = server.info(start=False).get("pid")  # told on its own machine only
        with waiting(options, "waiting for the server to end"):
            server.stop_server()
            wait_stopped(lambda: is_running(server.address), pid if isinstance(pid, int) else None)
    except NotRunningError:
        return False
    return True


def _own(options: Options) -> Api:
    """Return the client of this machine's own server, or of the one that was named, but not of the default.

    Raises `UsageError` for a server on another machine.
    """
    from shed.client.config import resolve
    from shed.client.sync.api import Api
    from shed.names import LOCAL

    named = options.server or os.environ.get("SHED_SERVER")
    server = Api(resolve(named or LOCAL, config=options.config))
    if not (server.address.local or server.address.path):
        raise UsageError(f"{server.address} is not on this machine", hint="start and stop it there: shed-server serve")
    return server


@command(
    "server add",
    argument("HOST", "host, http://host:port, unix:///path, or ssh://[user@]host[:port]"),
    option("-n, --name", "NAME", "name for the server (default: the first part of the host name)"),
    option("-p, --http-port", "PORT", "its HTTP port (default: 8080)", convert=values.port),
    option("--ssh-port", "PORT", "its SSH port (default: the one that it reports)", convert=values.port),
    option(
        "--token-file",
        "FILE",
        "file with the token for its HTTP port, - for standard input; the token is kept in ~/.shed/tokens",
    ),
    flag("--default", "make it the default server"),
    flag("--no-check", "do not connect to it now"),
    flag("--replace-key", "pin the host key that it shows now, even if another one is pinned"),
    examples=[
        "shed server add ssh://me@lab.example",
        "shed server add 127.0.0.1 -p 8081 -n tunnel --token-file lab.token",
    ],
)
def add(args: Any, options: Options) -> int:
    """Add a server to the client's configuration.

    This asks the server who it is and pins its SSH host key.  The first server that is added becomes the default.
    """
    from shed.client.config import load
    from shed.client.config_state import add_server
    from shed.client.tokens import default_tokens, keep
    from shed.names import check_server_name

    address = _address(args.host, args.http_port)
    name = check_server_name(args.name or _name(address))
    config = _config(options)
    token = None if args.token_file is None else _token(args.token_file, address)
    address.token = token
    ssh_port = args.ssh_port
    pinned = False
    if not args.no_check:
        info = _info(address)
        told = info.get("ssh_port")
        ssh_port = ssh_port or (told if isinstance(told, int) else None)
        pinned = ssh_port is not None and _pin(address, ssh_port, config, replace=args.replace_key)
    replaced = name in config.servers
    if token is not None:
        keep(default_tokens(), address, token)
    add_server(config, name, address, ssh_port=ssh_port, default=args.default)
    is_default = load(options.config).default == name
    sentence = f"{'changed' if replaced else 'added'} {name} ({address}){', the default server' if is_default else ''}"
    done(options, "add", name, sentence, address=str(address), default=is_default, host_key_pinned=pinned)
    return 0


@command("server list")
def list_servers(args: Any, options: Options) -> int:
    """List the servers of the client's configuration.  * marks the default.

    No server but this machine's own is asked anything.
    """
    from shed.client.config import load
    from shed.names import LOCAL

    config = load(options.config)
    default = config.default or LOCAL
    ports = {LOCAL: _local_ssh_port(), **{name: server.ssh_port for name, server in config.servers.items()}}
    rows = [(name, str(config.address(name)), ports[name]) for name in config.names()]
    if options.json:
        emit(
            [
                {"name": name, "address": address, "ssh_port": ssh, "default": name == default}
                for name, address, ssh in rows
            ]
        )
    else:
        shown = [["*" if name == default else "", name, address, str(ssh or "-")] for name, address, ssh in rows]
        say(table(["", "NAME", "ADDRESS", "SSH"], shown), end="")
    return 0


def _local_ssh_port() -> int | None:
    """Return the port of the SSH front of this machine's own server, when it runs."""
    from shed.client.address import local
    from shed.client.messages import object_of
    from shed.client.sync.requests import request

    try:
        answer = request(local(), "GET", "/api/info", start=False, timeout=_LOCAL_TIMEOUT)
    except ShedError:
        return None
    port = object_of(answer).get("ssh_port")
    return port if isinstance(port, int) else None


@command("server remove", argument("NAME", "name of the server", offers="servers"))
def remove(args: Any, options: Options) -> int:
    """Remove a server from the client's configuration.  Nothing changes on the server itself."""
    from shed.client.config_state import remove_server
    from shed.client.tokens import default_tokens, keep

    name = args.name
    config = _config(options)
    address = config.address(name)
    was_default = remove_server(config, name)
    keep(default_tokens(), address, None)
    if was_default and not options.json:
        note("it was the default; now that is this machine's own server")
    done(options, "remove", name, f"removed {name}", was_default=was_default)
    return 0


@command("server set-default", argument("NAME", "name of the server, or local", offers="servers"))
def set_default(args: Any, options: Options) -> int:
    """Make a server the default: the one that is used without -s."""
    from shed.client import config_state

    name = args.name
    config_state.set_default(_config(options), name)
    done(options, "set-default", name, f"{name} is the default server")
    return 0


def _config(options: Options) -> Config:
    """Return the configuration to change; unlike for reading, one that was named need not exist yet."""
    from shed.client.config import Config, exists, load

    if options.config is not None and not exists(options.config):
        return Config(options.config)
    return load(options.config)


def _token(file: str, address: Address) -> str:
    """Return the token that a file holds.  Raises `UsageError`."""
    from pathlib import Path

    if address.path is not None or address.ssh is not None:
        raise UsageError(f"{address} needs no token", hint="leave out --token-file")
    try:
        text = sys.stdin.read(_LONGEST_TOKEN) if file == "-" else Path(file).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"cannot read the token in {file}: {why}", hint="write it there with: shed token create NAME > FILE"
        ) from None
    if len(text.split()) != 1:
        what = "standard input" if file == "-" else file
        raise UsageError(
            f"{what} does not hold one token, and nothing else", hint="make one with: shed token create NAME"
        )
    return text.strip()


def _address(host: str, port: int | None) -> Address:
    from shed.client.address import parse

    if "://" in host:
        return parse(host if port is None or not host.startswith("http://") else f"{host.removesuffix('/')}:{port}")
    bracketed = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
    return parse(f"http://{bracketed}" if port is None else f"http://{bracketed}:{port}")


def _name(address: Address) -> str:
    """Return a name for a server without one: the first part of its host name, or all of an IP address."""
    import re

    host = address.host or "server"
    word = host if re.fullmatch(r"[\d.]+", host) else host.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-.") or "server"


def _info(address: Address) -> dict[str, object]:
    from shed.client.sync.api import Api

    try:
        return Api(address).info(start=False)
    except UnavailableError as error:
        if address.host and address.ssh is None:
            error.hint = (
                f"servers listen on loopback only: shed server add ssh://{address.host}; or --no-check to "
                "add it all the same"
            )
        raise


def _pin(address: Address, port: int, config: Config, *, replace: bool) -> bool:
    """Pin the key of the server's SSH front; return whether it has one."""
    from pathlib import Path

    from shed.client.known_hosts import pin
    from shed.client.sync.requests import request

    try:
        answer = request(address, "GET", "/api/ssh-host-key")
    except NotFoundError:  # a server without a front
        return False
    key = answer.get("host_key") if isinstance(answer, dict) else None
    if not isinstance(key, str) or not key:
        return False
    private = address.path is not None or address.ssh is not None  # nobody can be in between
    try:
        known_hosts = Path(config.path).with_name("known_hosts")
        pin(known_hosts, address.host or "localhost", port, key, replace=replace or private)
    except ConflictError as error:
        error.hint = "if it is meant to be another one: --replace-key; otherwise somebody may be in between"
        raise
    return True


@command("server dial-stdio")
def dial_stdio(args: Any, options: Options) -> int:
    """Carry one connection to the server over standard input and output.

    Clients of `ssh://` addresses run it at the other end.
    """
    import socket
    import threading

    from shed.client.config import resolve
    from shed.client.transport import connect

    server = socket.socket(fileno=connect(resolve(options.server or "local", config=options.config)).detach())
    threading.Thread(target=_feed, args=(server,), daemon=True).start()
    while data := server.recv(_CHUNK):
        _write(data)
    os._exit(0)  # the other thread may be reading for ever


def _feed(server: socket.socket) -> None:
    """Carry standard input to the server."""
    import socket

    try:
        while data := os.read(0, _CHUNK):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
    except OSError:
        os._exit(1)


def _write(data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(1, view) :]
    except OSError:  # the client has gone, and the server sees it
        os._exit(1)
