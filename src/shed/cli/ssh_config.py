"""`shed ssh-config`: sheds as hosts of OpenSSH, for people, editors and everything else that speaks SSH."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from shed.cli.connection import client, client_of
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.client.address import DEFAULT_SSH_PORT, Address
from shed.client.client import Client
from shed.client.config import Config, load
from shed.client.identity import default_identity, own_key
from shed.client.known_hosts import pattern, pin
from shed.client.locate import ask
from shed.client.ssh_config import Host, aliases, install, merged, read, text_of, uninstall
from shed.client.transport import NotRunningError
from shed.errors import NotFoundError, ShedError, UnavailableError, UsageError
from shed.names import LOCAL, check_shed_name
from shed.terminal.output import emit, note, say


def ssh_config(words: list[str], options: Options) -> int:
    """Print or install what OpenSSH needs to reach sheds."""
    parser = Parser(
        "ssh-config",
        "Print what OpenSSH needs to reach sheds as hosts called shed-NAME: of one shed, of a server named with -s, "
        "or of all servers.\n"
        "Each server's host key is pinned in ~/.shed/known_hosts.  Your own key, ~/.shed/id_ed25519, is made when it "
        "is missing, and each\n"
        "server is told to let it in.",
        examples=["shed ssh-config dev", "shed ssh-config --install", "ssh shed-dev", "shed ssh-config --uninstall"],
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the shed (default: all)")
    parser.add_argument("-a", "--all", action="store_true", help="all sheds of all servers, as without a name")
    parser.add_argument(
        "--install", action="store_true", help="have ~/.ssh/config include them, from ~/.shed/ssh_config"
    )
    parser.add_argument("--uninstall", action="store_true", help="undo that: ~/.ssh/config is what it was before")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what --install or --uninstall would write, and write nothing"
    )
    args = parser.parse(words, options)
    if args.install and args.uninstall:
        raise UsageError("--install and --uninstall at once", hint="choose one")
    if args.name is not None and (args.all or args.uninstall):
        raise UsageError(f"{'--all' if args.all else '--uninstall'} is about all sheds", hint=f"leave out {args.name}")
    if args.all and options.server is not None:
        raise UsageError("--all asks all servers", hint="leave out --all, or -s")
    config = load(options.config)
    user_file, ours = Path("~/.ssh/config").expanduser(), Path(config.path).with_name("ssh_config").absolute()
    if args.uninstall:
        return _uninstall(user_file, ours, options, dry_run=args.dry_run)
    hosts, down = _hosts(config, args.name, options, changing=not args.dry_run)
    if not (args.install or args.dry_run):
        if options.json:
            emit([_wire(host) for host in hosts])
        else:
            say(text_of(hosts), end="")
        return 1 if down and not hosts else 0
    text = merged(read(ours), hosts, keep_servers=down, keep_all=args.name is not None or options.server is not None)
    if not args.dry_run:
        install(user_file, ours, text)
    elif not options.json:
        say(f"{ours} would be:\n\n{text}\n{user_file} would include it.")
        return 0
    names = ", ".join(host.alias for host in hosts) or "no sheds yet"
    sentence = f"{user_file} knows {names}"
    done(
        options,
        "ssh-config",
        "install",
        sentence,
        path=str(user_file),
        hosts=[_wire(host) for host in hosts],
        dry_run=args.dry_run,
    )
    return 1 if down and not hosts else 0


def _uninstall(user_file: Path, ours: Path, options: Options, *, dry_run: bool) -> int:
    hosts = aliases(read(ours)) if dry_run else uninstall(user_file, ours)
    sentence = (
        f"{user_file} {'would no longer know' if dry_run else 'no longer knows'} {', '.join(hosts) or 'of sheds'}"
    )
    done(options, "ssh-config", "uninstall", sentence, path=str(user_file), hosts=hosts, dry_run=dry_run)
    return 0


def _hosts(config: Config, name: str | None, options: Options, *, changing: bool) -> tuple[list[Host], list[str]]:
    """Return the hosts that are asked for, and the names of the servers that did not answer."""
    known_hosts = Path(config.path).with_name("known_hosts").absolute()
    if name is not None:
        server = client_of(name, options)
        server.shed(name)
        return _of_server(server, [name], config, known_hosts, changing=changing), []
    if options.server is not None or not config.servers:
        server = client(options)
        return _of_server(server, [shed.name for shed in server.sheds()], config, known_hosts, changing=changing), []
    answers = ask(
        config,
        sorted(config.names(), key=lambda server: server != (config.default or LOCAL)),
        lambda server: _of_server(
            server, [shed.name for shed in server.sheds()], config, known_hosts, changing=changing
        ),
    )
    found: dict[str, Host] = {}
    down = []
    for server_name, answer in answers.items():
        if isinstance(answer, NotRunningError) and server_name == LOCAL:
            continue
        if isinstance(answer, ShedError):
            note(f"warning: {server_name}: {answer.message}")
            down.append(server_name)
            continue
        for host in answer:
            taken = host.alias in found  # another server has a shed of the same name
            named = replace(host, alias=f"{host.alias}.{host.server}") if taken else host
            found[named.alias] = named
    return list(found.values()), down


def _of_server(server: Client, sheds: list[str], config: Config, known_hosts: Path, *, changing: bool) -> list[Host]:
    """Return sheds of one server as hosts; with `changing` pin its key and have it let ours in.

    Raises `UnavailableError` (SSH_OFF) without an SSH front.
    """
    info = server.info()
    port, address = info.get("ssh_port"), server.address
    if not isinstance(port, int):
        reason = str(info.get("ssh", "")).removeprefix("off: ") or "it does not say more"
        raise UnavailableError(
            f"the server at {address} has no SSH front: {reason}", code="SSH_OFF", hint="see ssh_port in server.yaml"
        )
    entry = config.servers.get(address.name or "")
    if entry is not None and entry.ssh_port != DEFAULT_SSH_PORT:
        port = entry.ssh_port
    host = address.host or "localhost"
    identity: Path | None = default_identity()
    if changing:
        # Nobody can be in between on a Unix socket, or in the user's own ssh.
        pin(known_hosts, host, port, server.ssh_host_key(), replace=address.path is not None or address.ssh is not None)
        identity = _enrolled(server)
    jump = {} if address.ssh is None else {"jump": str(address), "key_name": pattern(host, port)}
    hostname = host if address.ssh is None else "localhost"
    place = address.name or LOCAL
    return [
        Host(f"shed-{shed}", place, shed, hostname, port, known_hosts, identity=identity, **jump)
        for shed in _names(sheds, address)
    ]


def _names(sheds: list[str], address: Address) -> Iterator[str]:
    """Yield the names among what a server calls its sheds: whatever else it says would be lines that OpenSSH reads."""
    for name in sorted(sheds):
        try:
            yield check_shed_name(name)
        except UsageError as error:
            note(f"warning: {address} lists a shed that is left out: {error.message}")


def _enrolled(server: Client) -> Path | None:
    """Have `server` let in our key, and return the private one; None, and a note, where that is another's to decide."""
    identity = default_identity()
    key = own_key(identity)
    try:
        server.add_ssh_key(f"{key} {key.comment}")
    except NotFoundError:  # an older server
        return None
    except ShedError as error:
        if error.code != "FORBIDDEN":
            raise
        note(
            f"warning: {server.address} does not let in your key: {error.message}; on its machine: shed ssh-key add "
            f"'{key}'"
        )
        return None
    return identity


def _wire(host: Host) -> dict[str, object]:
    return {
        "host": host.alias,
        "name": host.shed,
        "server": host.server,
        "hostname": host.hostname,
        "port": host.port,
        "user": host.shed,
        "known_hosts_file": str(host.known_hosts),
        "identity_file": None if host.identity is None else str(host.identity),
    }
