"""`shed ssh-config`: sheds as hosts of OpenSSH.  `shed ssh-key`: the keys that a server lets in by SSH."""

from __future__ import annotations

import sys

from shed.cli.arguments import argument, flag
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client, client_of
from shed.cli.output import done
from shed.errors import DataError, NotFoundError, ShedError, UnavailableError, UsageError
from shed.terminal.output import age, emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from shed.cli.options import Options
    from shed.client.address import Address
    from shed.client.config import Config
    from shed.client.ssh_config import Host
    from shed.client.sync.api import Api
    from shed.sshkeys import PublicKey


@command(
    "ssh-config",
    argument("NAME", "name of the shed (default: all sheds)", count="?", offers="sheds"),
    flag("-a, --all", "all sheds of all servers; the same as no name"),
    flag("--install", "write ~/.shed/ssh_config, and include it in ~/.ssh/config"),
    flag("--uninstall", "undo --install: ~/.ssh/config becomes what it was before"),
    flag("--dry-run", "show what --install or --uninstall would write, and write nothing"),
    examples=["shed ssh-config dev", "shed ssh-config --install", "ssh shed-dev", "shed ssh-config --uninstall"],
)
def ssh_config(args: Any, options: Options) -> int:
    """Print the OpenSSH configuration for reaching sheds as hosts called shed-NAME.

    It covers one shed, the sheds of the server named with -s, or the sheds of all servers.  Each server's host key is
    pinned in ~/.shed/known_hosts.  Your key ~/.shed/id_ed25519 is created if it is missing, and added to each server.
    """
    from pathlib import Path

    from shed.client.config import load
    from shed.client.ssh_config import install, merged, read, text_of

    if args.install and args.uninstall:
        raise UsageError("--install and --uninstall do not go together", hint="leave one out")
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
    from shed.client.ssh_config import aliases, read, uninstall

    hosts = aliases(read(ours)) if dry_run else uninstall(user_file, ours)
    sentence = (
        f"{user_file} {'would no longer know' if dry_run else 'no longer knows'} {', '.join(hosts) or 'of sheds'}"
    )
    done(options, "ssh-config", "uninstall", sentence, path=str(user_file), hosts=hosts, dry_run=dry_run)
    return 0


def _hosts(config: Config, name: str | None, options: Options, *, changing: bool) -> tuple[list[Host], list[str]]:
    """Return the hosts that are asked for, and the names of the servers that did not answer."""
    from dataclasses import replace
    from pathlib import Path

    from shed.client.locate import ask
    from shed.client.transport import NotRunningError
    from shed.names import LOCAL

    known_hosts = Path(config.path).with_name("known_hosts").absolute()
    if name is not None:
        server = client_of(name, options)
        server.shed(name)
        return _of_server(server, [name], config, known_hosts, changing=changing), []
    if options.server is not None or not config.servers:
        server = client(options)
        return _of_server(
            server, [str(shed.get("name", "")) for shed in server.sheds()], config, known_hosts, changing=changing
        ), []
    answers = ask(
        config,
        sorted(config.names(), key=lambda server: server != (config.default or LOCAL)),
        lambda server: _of_server(
            server, [str(shed.get("name", "")) for shed in server.sheds()], config, known_hosts, changing=changing
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


def keep_current(server: Api, options: Options, *, made: Iterable[str] = (), gone: Iterable[str] = ()) -> None:
    """Have the hosts of OpenSSH follow what was just made on, or is gone from, `server`, where they are installed.

    What goes wrong is a warning: the command itself has done its work.
    """
    from pathlib import Path

    from shed.client.config import load
    from shed.client.ssh_config import keep_current as keep
    from shed.names import LOCAL

    try:
        config = load(options.config)
        folder, place = Path(config.path).parent.absolute(), server.address.name or LOCAL
        if (folder / "ssh_config").exists():
            hosts = _of_server(server, list(made), config, folder / "known_hosts", changing=False) if made else []
            keep(folder / "ssh_config", hosts, gone=[(place, name) for name in gone])
    except ShedError as error:
        note(f"warning: ~/.ssh/config does not know of the change: {error.message}; see: shed ssh-config --install")


def host_of(server: Api, name: str, options: Options) -> Host:
    """Return a shed of `server` as a host, whose key is pinned, and which lets our key in.

    Raises as `shed ssh-config` does.
    """
    from pathlib import Path

    from shed.client.config import load

    config = load(options.config)
    (host,) = _of_server(server, [name], config, Path(config.path).with_name("known_hosts").absolute(), changing=True)
    return host


def _of_server(server: Api, sheds: list[str], config: Config, known_hosts: Path, *, changing: bool) -> list[Host]:
    """Return sheds of one server as hosts.  With `changing`, pin the server's key and add ours to the server.

    Raises `UnavailableError` (SSH_OFF) without an SSH front.
    """
    from shed.client.address import DEFAULT_SSH_PORT
    from shed.client.identity import default_identity
    from shed.client.known_hosts import pattern, pin
    from shed.client.ssh_config import Host
    from shed.names import LOCAL

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
    """Yield those of a server's shed names that are valid: OpenSSH would read anything else as its own lines."""
    from shed.names import check_shed_name

    for name in sorted(sheds):
        try:
            yield check_shed_name(name)
        except UsageError as error:
            note(f"warning: {address} lists a shed that is left out: {error.message}")


def _enrolled(server: Api) -> Path | None:
    """Add our key to `server`, and return the file of the private key.

    Returns None, with a note, where we may not add keys.
    """
    from shed.client.identity import default_identity, own_key

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


ssh_keys = Group(
    "ssh-key",
    "The keys that a server lets in by SSH.  `shed ssh-config` adds your own, ~/.shed/id_ed25519.",
    {
        "list": Entry("shed.cli.ssh:list_keys", "list the keys"),
        "add": Entry("shed.cli.ssh:add_key", "let a key in"),
        "remove": Entry("shed.cli.ssh:remove_key", "no longer let a key in"),
    },
)


@command("ssh-key list")
def list_keys(args: Any, options: Options) -> int:
    """List the keys that were added to the server.

    The keys of ssh.authorized_keys in the server's configuration are not shown.
    """
    keys = client(options).ssh_keys()
    if options.json:
        emit(keys)
    elif keys or not sys.stdout.isatty():
        rows = [
            [str(key.get("fingerprint")), str(key.get("comment") or "-"), age(str(key.get("added_at", "")))]
            for key in keys
        ]
        say(table(["FINGERPRINT", "COMMENT", "ADDED"], rows), end="")
    else:
        note("no keys; let your own in: shed ssh-config --install")
    return 0


@command(
    "ssh-key add",
    argument(
        "KEY",
        "file with one public key, or the text of the key (default: ~/.shed/id_ed25519.pub)",
        count="?",
        offers="files",
    ),
    examples=[
        "shed ssh-key add",
        "shed ssh-key add ~/.ssh/id_ed25519.pub",
        "shed ssh-key add 'ssh-ed25519 AAAA... me@laptop'",
    ],
)
def add_key(args: Any, options: Options) -> int:
    """Add a public key to the server.  Whoever has the private key can enter every shed by SSH."""
    from shed.client.identity import default_identity, own_key

    key = own_key(default_identity()) if args.key is None else _public_key(args.key)
    fingerprint = client(options).add_ssh_key(f"{key} {key.comment}")
    done(options, "ssh-key add", fingerprint, f"{fingerprint} is let in", comment=key.comment)
    return 0


@command(
    "ssh-key remove",
    argument("FINGERPRINT", "the key's fingerprint or comment, as `shed ssh-key list` shows them", key="key"),
)
def remove_key(args: Any, options: Options) -> int:
    """Remove a key from the server.  New connections with it are refused; open ones stay."""
    wanted = args.key
    server = client(options)
    found = [
        str(key["fingerprint"]) for key in server.ssh_keys() if wanted in (key.get("fingerprint"), key.get("comment"))
    ]
    if len(found) != 1:
        many = f"{len(found)} keys are called {wanted!r}" if found else f"the server has no key {wanted!r}"
        raise NotFoundError(many, code="SSH_KEY_NOT_FOUND", hint="name it by its fingerprint: shed ssh-key list")
    server.remove_ssh_key(found[0])
    done(options, "ssh-key remove", found[0], f"{found[0]} is no longer let in")
    return 0


def _public_key(wanted: str) -> PublicKey:
    from pathlib import Path

    from shed.sshkeys import PublicKey

    if " " in wanted.strip():
        text, what = wanted, "the argument"
    else:
        try:
            text, what = Path(wanted).expanduser().read_text(encoding="utf-8", errors="replace"), wanted
        except OSError as error:
            raise UsageError(f"cannot read {wanted}: {error.strerror}", hint="name the file of a public key") from None
    try:
        return PublicKey.parse(text)
    except DataError:
        raise UsageError(
            f"{what} is not a public key", code="INVALID_SSH_KEY", hint="it should read: ssh-ed25519 AAAA…"
        ) from None
