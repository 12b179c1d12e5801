"""`shed start | stop | suspend | resume | restart | delete`, of one shed or of several; `shed update | rename`."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import command
from shed.cli.connection import client, client_of, seen, where
from shed.cli.errors import report
from shed.cli.making import (
    CHANGEABLE,
    COLD,
    ENVIRONMENT,
    FORCE,
    IDLE_SUSPEND,
    LABEL,
    RESTART,
    TTL_ACTION,
    labels,
    variables,
)
from shed.cli.output import confirm, done, watched
from shed.cli.sheds import finished, set_up, tell_end, update_ssh
from shed.errors import ShedError, UsageError
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from shed.cli.options import Options
    from shed.client.options import ShedChanges
    from shed.client.sync.api import Api

_SHEDS = argument("NAME", "names of sheds", offers="sheds", count="*")
_ALL = flag("--all", "all sheds of the server")
_DONE = {
    "start": "started",
    "stop": "stopped",
    "restart": "restarted",
    "suspend": "suspended",
    "resume": "resumed",
}


@command(
    "start",
    _SHEDS,
    _ALL,
    COLD,
    FORCE,
    flag("--no-memory", "boot the disk of a suspended shed: what ran there is gone"),
    examples=["shed start dev", "shed start --all"],
)
def start(args: Any, options: Options) -> int:
    """Start stopped sheds.  A suspended one goes on where it was, one that runs already stays as it is."""

    def work(server: Api, name: str) -> int:
        return _start(server, name, "start", args, options, disk_only=args.no_memory)

    return _each(_names(args, options), work, options)


@command("stop", _SHEDS, _ALL, examples=["shed stop dev", "shed stop dev1 dev2"])
def stop(args: Any, options: Options) -> int:
    """Stop running or suspended sheds.  Their files stay.  One that is stopped already stays as it is."""

    def work(server: Api, name: str) -> None:
        with watched(options) as sink:
            shed = _unless("SHED_ALREADY_STOPPED", lambda: server.stop(name, on_event=sink))
        _tell(server, name, "stop", shed, options)

    return _each(_names(args, options), work, options)


@command("suspend", _SHEDS, _ALL, examples=["shed suspend dev"])
def suspend(args: Any, options: Options) -> int:
    """Suspend running sheds: what is in their memory goes to the disk, and they take no memory and no processor.

    A command, an SSH session or a connection to one has it go on where it was, and so does `shed resume`.
    """

    def work(server: Api, name: str) -> None:
        with watched(options) as sink:
            shed = _unless("SHED_SUSPENDED", lambda: server.suspend(name, on_event=sink))
        _tell(server, name, "suspend", shed, options)

    return _each(_names(args, options), work, options)


@command("resume", _SHEDS, _ALL, FORCE, examples=["shed resume dev"])
def resume(args: Any, options: Options) -> int:
    """Have suspended sheds go on where they were.  To boot their disks instead: shed start --no-memory."""

    def work(server: Api, name: str) -> None:
        with watched(options) as sink:
            shed = server.resume(name, force=args.force, on_event=sink)
        _tell(server, name, "resume", shed, options)

    return _each(_names(args, options), work, options)


@command("restart", _SHEDS, _ALL, COLD, FORCE, examples=["shed restart dev"])
def restart(args: Any, options: Options) -> int:
    """Stop sheds and start them again.  One that is stopped is started, and what ran in a suspended one is gone."""

    def work(server: Api, name: str) -> int:
        with watched(options) as sink:
            _unless("SHED_ALREADY_STOPPED", lambda: server.stop(name, on_event=sink))
        return _start(server, name, "restart", args, options)

    return _each(_names(args, options), work, options)


@command(
    "delete",
    _SHEDS,
    _ALL,
    flag("-f, --force", "do not ask for confirmation"),
    examples=["shed delete dev", "shed delete --force dev1 dev2"],
)
def delete(args: Any, options: Options) -> int:
    """Delete sheds and all files in them.  Folders given with --local-dir stay."""
    names = _names(args, options)
    servers = {name: client_of(name, options) for name in names}  # those that say that they have them, or the named one
    listed = ", ".join(f"{name!r}{where(server)}" for name, server in servers.items())
    what = f"shed {listed} and everything in it" if len(names) == 1 else f"sheds {listed} and everything in them"
    if names and not confirm(f"Delete {what}?", options, force=args.force):
        note("Cancelled.")
        return 0

    def work(server: Api, name: str) -> None:
        with watched(options) as sink:
            server.delete(name, force=True, on_event=sink)  # the user has agreed
        seen(server, options, {}, gone=[name])
        update_ssh(server, options, gone=[name])
        done(options, "delete", name, f"deleted {name}{where(server)}")

    return _each(names, work, options, servers)


@command(
    "update",
    SHED,
    *CHANGEABLE,
    option(
        "--ttl",
        "TIME",
        "delete it after this time from now, whatever runs in it: 90m, 12h, 7d; none: keep it",
        convert=values.duration_or_none,
    ),
    TTL_ACTION,
    IDLE_SUSPEND,
    RESTART,
    *ENVIRONMENT,
    LABEL,
    option("--no-label", "KEY", "label that it has no more; can be repeated", repeat=True),
    option("--no-env", "KEY", "environment variable that its commands have no more; can be repeated", repeat=True),
    examples=[
        "shed update dev --upper-size 40G",
        "shed update dev --ttl 12h",
        "shed update dev --cpus 4 --memory 8G && shed restart dev",
        "shed update dev --ssh-agent git@github.com",
    ],
)
def update(args: Any, options: Options) -> int:
    """Change a shed.  Processors and memory count from its next start on; its disk grows at once, and never shrinks.

    Commands that start from now on have its new environment variables.  Where it may use SSH agents changes at once.
    """
    changes: ShedChanges = {
        "cpus": args.cpus,
        "memory_mb": args.memory,
        "upper_size_bytes": args.upper_size,
        "ttl": args.ttl,
        "ttl_action": args.ttl_action,
        "idle_suspend": args.idle_suspend,
        "restart": args.restart,
        "ssh_agent": args.ssh_agent,
        "env": variables(args),
        "no_env": args.no_env or None,
        "labels": labels(args.label),
        "no_labels": args.no_label or None,
    }
    if all(each is None for each in changes.values()):
        raise UsageError("nothing is to change", hint="see: shed update --help")
    server = client_of(args.name, options)
    with watched(options) as sink:
        shed = server.update(args.name, on_event=sink, **changes)
    finished(options, "update", "updated", shed)
    tell_end(shed, options)
    return 0


@command(
    "rename", SHED, argument("NEW-NAME", "the name that it gets", key="new_name"), examples=["shed rename dev old-dev"]
)
def rename(args: Any, options: Options) -> int:
    """Give a stopped shed another name."""
    server = client_of(args.name, options)
    shed = server.rename(args.name, args.new_name)
    name = str(shed.get("name"))
    seen(server, options, {name: str(shed.get("status", ""))}, gone=[args.name])
    update_ssh(server, options, made=[name], gone=[args.name])
    done(options, "rename", name, f"renamed {args.name} to {name}", shed=shed)
    return 0


def _names(args: Any, options: Options) -> list[str]:
    """Return the names that are meant, each once.  Raises `UsageError` for none, and for names beside ``--all``."""
    if bool(args.name) == args.all:
        raise UsageError(
            "--all and names of sheds exclude each other" if args.all else "no shed is named",
            hint="name the sheds, or say --all; `shed list` shows what there is",
        )
    if not args.all:
        return list(dict.fromkeys(args.name))
    names = sorted(str(shed["name"]) for shed in client(options).sheds())
    if not names and not options.json:
        note("there are no sheds")
    return names


def _each(
    names: list[str],
    work: Callable[[Api, str], int | None],
    options: Options,
    servers: Mapping[str, Api] | None = None,
) -> int:
    """Do `work` for one name after the other, with the one of `servers` that has it, if they are known.

    A failure of one does not keep the others from their turn; the exit code is then that of the first failure.  With
    --json, each one's object is on a line.
    """
    options.json_lines = len(names) > 1
    code = 0
    for name in names:
        try:
            code = work(servers[name] if servers else client_of(name, options), name) or code
        except ShedError as error:
            if len(names) == 1:
                raise
            report(error, options)
            code = code or error.exit_code
    return code


def _start(server: Api, name: str, action: str, args: Any, options: Options, *, disk_only: bool = False) -> int:
    """Return the exit code."""
    with watched(options) as sink:
        shed = _unless(
            "SHED_ALREADY_RUNNING",
            lambda: server.start(name, cold=args.cold, force=args.force, disk_only=disk_only, on_event=sink),
        )
    _tell(server, name, action, shed, options)
    return set_up(shed or {}, options)


def _unless(code: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Return what `work` returns, None when it fails with `code`: then there was nothing to do."""
    try:
        return work()
    except ShedError as error:
        if error.code != code:
            raise
        return None


def _tell(server: Api, name: str, action: str, shed: dict[str, Any] | None, options: Options) -> None:
    """Say what was done; `shed` is None when it was so already."""
    now = shed or server.shed(name)
    seen(server, options, {name: str(now.get("status", ""))})
    if shed is not None:
        finished(options, action, _DONE[action], shed)
    else:
        done(options, action, name, f"{name} is {now.get('status')} already", shed=now)
