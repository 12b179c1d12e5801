"""`shed server add | list | remove | set-default`: the servers that the client's configuration knows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from shed.cli import parsing
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.client import http
from shed.client.address import Address, local, parse
from shed.client.client import Client, object_of
from shed.client.config import Config, exists, load
from shed.client.config_state import add_server, remove_server, set_default
from shed.client.known_hosts import pin
from shed.client.tokens import default_tokens, keep
from shed.errors import ConflictError, NotFoundError, ShedError, UnavailableError, UsageError
from shed.names import LOCAL, check_server_name
from shed.terminal.output import emit, note, say, table

_LONGEST_TOKEN = 4096
_LOCAL_TIMEOUT = 1.0
"""Seconds that this machine's own server has to say its port: nobody waits for one that hangs."""


def add(words: list[str], options: Options) -> int:
    """Add a server to the configuration, after asking it who it is."""
    parser = Parser(
        "server add",
        "Add a server to the configuration.  It is asked who it is, and the key of its SSH front is pinned.  The "
        "first one is the default.",
        examples=[
            "shed server add ssh://me@lab.example",
            "shed server add 127.0.0.1 -p 8081 -n tunnel --token-file lab.token",
        ],
    )
    parser.add_argument(
        "host", metavar="HOST", help="host, http://host:port, unix:///path, or ssh://[user@]host[:port]"
    )
    parser.add_argument("-n", "--name", metavar="NAME", help="what to call it (default: the host's first word)")
    parser.add_argument("-p", "--http-port", metavar="PORT", type=parsing.port, help="its HTTP port (default: 8080)")
    parser.add_argument(
        "--ssh-port", metavar="PORT", type=parsing.port, help="port of its SSH front (default: what it says)"
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="holds the token for its HTTP port; - is standard input; kept in ~/.shed/tokens",
    )
    parser.add_argument("--default", action="store_true", help="make it the default server")
    parser.add_argument("--no-check", action="store_true", help="do not ask it anything: it does not answer now")
    parser.add_argument(
        "--replace-key", action="store_true", help="pin the key that it shows now, also when another one is pinned"
    )
    args = parser.parse(words, options)
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


def list_servers(words: list[str], options: Options) -> int:
    """List the servers of the configuration."""
    about = (
        "List the servers of the client's configuration.  * marks the default.  None but this machine's own is "
        "asked anything."
    )
    Parser("server list", about).parse(words, options)
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
    try:
        answer = http.request(local(), "GET", "/api/info", start=False, timeout=_LOCAL_TIMEOUT)
    except ShedError:
        return None
    port = object_of(answer).get("ssh_port")
    return port if isinstance(port, int) else None


def remove(words: list[str], options: Options) -> int:
    """Take a server out of the configuration; nothing on it changes."""
    parser = Parser(
        "server remove", "Take a server out of the client's configuration.  Nothing changes on the server itself."
    )
    parser.add_argument("name", metavar="NAME")
    name = parser.parse(words, options).name
    config = _config(options)
    address = config.address(name)
    was_default = remove_server(config, name)
    keep(default_tokens(), address, None)
    if was_default and not options.json:
        note("it was the default; now that is this machine's own server")
    done(options, "remove", name, f"removed {name}", was_default=was_default)
    return 0


def choose(words: list[str], options: Options) -> int:
    """Make a server the default."""
    parser = Parser("server set-default", "Make a server the one that is meant without -s.")
    parser.add_argument("name", metavar="NAME", help="name of a server, or local")
    name = parser.parse(words, options).name
    set_default(_config(options), name)
    done(options, "set-default", name, f"{name} is the default server")
    return 0


def _config(options: Options) -> Config:
    """Return the configuration to change; unlike for reading, one that was named need not exist yet."""
    if options.config is not None and not exists(options.config):
        return Config(options.config)
    return load(options.config)


def _token(file: str, address: Address) -> str:
    """Return the token that a file holds.  Raises `UsageError`."""
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
    if "://" in host:
        return parse(host if port is None or not host.startswith("http://") else f"{host.removesuffix('/')}:{port}")
    bracketed = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
    return parse(f"http://{bracketed}" if port is None else f"http://{bracketed}:{port}")


def _name(address: Address) -> str:
    """Return what to call a server whose address is all that is known: the first word of its host name, or all of an IP address."""
    host = address.host or "server"
    word = host if re.fullmatch(r"[\d.]+", host) else host.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-.") or "server"


def _info(address: Address) -> dict[str, object]:
    try:
        return Client(address).info(start=False)
    except UnavailableError as error:
        if address.host and address.ssh is None:
            error.hint = (
                f"servers listen on loopback only: shed server add ssh://{address.host}; or --no-check to "
                "add it all the same"
            )
        raise


def _pin(address: Address, port: int, config: Config, *, replace: bool) -> bool:
    """Pin the key of the server's SSH front; return whether it has one."""
    try:
        answer = http.request(address, "GET", "/api/ssh-host-key")
    except NotFoundError:  # a server without a front
        return False
    key = answer.get("host_key") if isinstance(answer, dict) else None
    if not isinstance(key, str) or not key:
        return False
    private = address.path is not None or address.ssh is not None  # nobody can be in between
    try:
        pin(
            Path(config.path).with_name("known_hosts"),
            address.host or "localhost",
            port,
            key,
            replace=replace or private,
        )
    except ConflictError as error:
        error.hint = "if it is meant to be another one: --replace-key; otherwise somebody may be in between"
        raise
    return True
