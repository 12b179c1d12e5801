"""`shed create | list | inspect`."""

from __future__ import annotations

import os
import sys

from shed.cli.arguments import SHED, argument, flag, option
from shed.cli.command import command
from shed.cli.connection import (
    ask_all,
    client,
    client_of,
    dotfiles,
    down_rows,
    known_on,
    report_down,
    seen,
)
from shed.cli.making import CREATING, asked_to_create
from shed.cli.output import done, shown, waiting
from shed.errors import ShedError, UsageError
from shed.terminal.output import age, cell, emit, note, say, seconds, table, timings, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from shed.cli.options import Options
    from shed.client.sync.api import Api

    Wanted = Callable[[dict[str, Any]], bool]
    Line = Callable[[dict[str, Any]], str]

NOT_ALL = 3
"""The exit code of a create whose shed can be used, though not all was done in it."""


@command(
    "create",
    argument("NAME", "name of the new shed: lower-case letters, digits and '-', at most 63"),
    *CREATING,
    flag("--no-git-identity", "with --repo: do not have git in the shed commit with the name and address of git here"),
    examples=[
        "shed create dev",
        "shed create dev --repo https://github.com/me/project#main",
        "shed create dev --image base --cpus 4 --memory 4G --local-dir .",
    ],
)
def create(args: Any, options: Options) -> int:
    """Create a shed from an image and start it.

    The exit code is 3 when the shed is there, but its repository could not be cloned, or a hook of the project failed.
    With -v what hooks say is shown.
    """
    server = client(options)
    wanted = asked_to_create(args, server, options)
    if args.dotfiles is None and args.egress not in ([], ["offline"]):
        wanted["dotfiles"] = dotfiles(options)
    with undone(server, args.name, options), shown(options) as sink:
        shed = server.create(args.name, on_event=sink, **wanted)
    seen(server, options, {args.name: str(shed.get("status", ""))})
    update_ssh(server, options, made=[args.name])
    if args.repo and args.ssh_agent and shed.get("failed"):
        shed = _with_agent(server, shed, options)
    finished(options, "create", "created", shed)
    tell_end(shed, options)
    _tell_way(server, options)
    if args.repo and not args.no_git_identity:
        from shed.cli.identity import introduce

        if problem := introduce(server, args.name):
            note(f"warning: {problem}")
    if (places := shed.get("repo_hosts")) and not options.json:
        note(f"  its rules let it reach {', '.join(places)} for that; see: shed egress show {args.name}")
    return set_up(shed, options)


def _with_agent(server: Api, shed: dict[str, Any], options: Options) -> dict[str, Any]:
    """Have the repository be cloned by the user's SSH agent, which the shed may use; return what the shed is then."""
    from shed.cli.agent import forwarded, here

    name = str(shed["name"])
    if not here():
        return shed
    if not options.json:
        note("cloning it with your SSH agent")
    try:
        with forwarded(server, name, options) as agent, shown(options) as sink:
            failed = server.provision(name, agent=agent, on_event=sink).get("failed") or []
    except ShedError as error:
        failed = [f"{error.message}; {error.hint}" if error.hint else error.message]
    return {**shed, "failed": failed}


def set_up(shed: dict[str, Any], options: Options) -> int:
    """Say that not all went well in a shed, if so; return the exit code."""
    if not shed.get("failed"):
        return 0
    if not options.json:
        note(f"{shed.get('name')} is there, but not all was done in it, see the warnings")
    return NOT_ALL


class undone:  # noqa: N801  used as a function is
    """Has ctrl-C in the block undo the create of `name`.  A second ctrl-C leaves at once; the server goes on then."""

    def __init__(self, server: Api, name: str, options: Options) -> None:
        self._server, self._name, self._quiet = server, name, options.json

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not KeyboardInterrupt:
            return
        left = f"{self._name} is undone"
        if not self._quiet:
            note(f"undoing {self._name}; ctrl-C again leaves that to the server")
        try:
            self._server.undo_create(self._name)
        except KeyboardInterrupt:
            left = "the server goes on; see: shed list"
        except ShedError as error:
            left = f"{self._name} was made before it could be undone; remove it: shed delete {self._name}"
            if error.code != "SHED_COMPLETE":
                left = f"{self._name} may be there or not: {error.message}; see: shed list"
        if not self._quiet:
            note(left)


@command(
    "list",
    flag("-q, --quiet", "print names only"),
    flag("-a, --all", "ask all configured servers at once, and name those that are down"),
    option(
        "-f, --filter",
        "KEY=VALUE",
        "only those with label=KEY or label=KEY=VALUE, status=running, or image=NAME; can be repeated: all labels, and "
        "one of the states and of the images",
        repeat=True,
    ),
    option("--format", "TEXT", "a line for each: '{name} {status}', with the members of --json, and {labels.KEY}"),
    examples=["shed list", "shed list -q -f label=ci -f status=stopped", "shed list --format '{name}\\t{image}'"],
)
def list_sheds(args: Any, options: Options) -> int:
    """List the sheds of the server.  -v adds process, size, workspace and image digest."""
    wanted, line = _listing(args, options)
    if args.all:
        return _list_all(options, wanted, line, quiet=args.quiet)
    server = client(options)
    with shown(options) as sink:
        found = server.sheds(on_event=sink)
    all_of_them = _by_name(found)
    seen(server, options, {shed["name"]: shed["status"] for shed in all_of_them}, gone=known_on(server, options))
    found = [shed for shed in found if wanted(shed)]
    sheds = _by_name(found)
    if options.json:
        emit(found)
    elif line is not None:
        say("".join(f"{line(shed)}\n" for shed in _in_order(found)), end="")
    elif args.quiet:
        say("".join(f"{shed['name']}\n" for shed in sheds), end="")
    elif sheds or not sys.stdout.isatty():
        _show(options, [([], shed) for shed in sheds])
    else:
        note("no sheds yet; make one: shed create NAME")
    for shed in sheds:
        if shed["detail"] and not options.json:
            note(f"{shed['name']}: {shed['detail']}")
    return 0


def _listing(args: Any, options: Options) -> tuple[Wanted, Line | None]:
    """Return what says which sheds are shown and, if that is asked for, what the line of one is.

    Raises `UsageError`.
    """
    if args.format is not None and (args.quiet or options.json):
        raise UsageError("--format excludes --quiet and --json", hint="--format '{name}' is --quiet")
    if not args.filter and args.format is None:
        return lambda shed: True, None
    from shed.cli.listing import Filters, Format

    return Filters(args.filter).fit, None if args.format is None else Format(args.format).line


def _list_all(options: Options, wanted: Wanted, line: Line | None, *, quiet: bool) -> int:
    """List the sheds of all servers, and the servers that do not answer.  The exit code is 1 when none answers."""
    from shed.client.config import load
    from shed.client.config_state import remember
    from shed.client.locate import ASK_TIMEOUT

    with waiting(options, "asking all servers"):
        answers, down = ask_all(options, lambda client: client.sheds(timeout=ASK_TIMEOUT), seconds=ASK_TIMEOUT)
    sheds: list[tuple[str, dict[str, Any]]] = []
    for server, answer in answers.items():
        there = _by_name(answer)
        answers[server] = [shed for shed in answer if wanted(shed)]
        sheds += [(server, shed) for shed in _by_name(answers[server])]
        gone = [name for name, entry in load(options.config).sheds.items() if entry.server == server]
        remember(load(options.config), server, {shed["name"]: shed["status"] for shed in there}, gone=gone)
    if options.json:
        listed = [{**shed, "server": server} for server, answer in answers.items() for shed in answer]
        emit({"sheds": listed, "down": down_rows(down)})
    elif line is not None:
        say("".join(f"{line(shed)}\n" for answer in answers.values() for shed in _in_order(answer)), end="")
    elif quiet:
        say("".join(f"{shed['name']}\n" for _, shed in sheds), end="")
    else:
        _show(options, [([server], shed) for server, shed in sheds], ["SERVER"])
    report_down(options, down)
    return 0 if answers else 1


@command("inspect", SHED, examples=["shed inspect dev", "shed inspect --json dev"])
def inspect(args: Any, options: Options) -> int:
    """Show all that the server knows about a shed."""
    shed = client_of(args.name, options).shed(args.name)
    if options.json:
        emit(shed)
        return 0
    facts = [(key.replace("_", " "), value) for key, value in shed.items()]
    width = max(len(key) for key, _ in facts)
    for key, value in facts:
        say(f"{key:<{width}}  {cell(value) or '-'}")
    return 0


def update_ssh(server: Api, options: Options, *, made: Iterable[str] = (), gone: Iterable[str] = ()) -> None:
    """Have the hosts of OpenSSH follow the sheds, where `shed ssh-config --install` was called."""
    folder = os.path.dirname(options.config) if options.config else os.path.expanduser("~/.shed")  # noqa: PTH111, PTH120
    if os.path.exists(os.path.join(folder, "ssh_config")):  # noqa: PTH110, PTH118  few have it
        from shed.cli.ssh import keep_current

        keep_current(server, options, made=made, gone=gone)


def finished(options: Options, action: str, verb: str, answer: dict[str, Any]) -> None:
    """Say that the server has done `action` on a shed, and how long it took; `answer` is what it said."""
    from shed.client.messages import complete_shed

    shed = complete_shed(answer)
    total = sum(shed["timings"].values())
    sentence = f"{verb} {shed['name']}{f' in {seconds(total)}' if total else ''}"
    done(options, action, shed["name"], sentence, shed=answer)
    if options.verbose and not options.json:
        note(((f"  {shed['boot']} start\n" if shed["boot"] else "") + timings(shed["timings"])).rstrip("\n"))


def tell_end(shed: dict[str, Any], options: Options) -> None:
    """Say when the time of a shed is up, if it ever is, and what is done then."""
    if (end := shed.get("expires_at")) and not options.json:
        done_then = {"stop": "stopped", "suspend": "suspended"}.get(shed.get("ttl_action", ""), "deleted")
        note(f"  it is {done_then} {until(end)}, at {end}; to change that: shed update {shed['name']} --ttl TIME|none")


def _tell_way(server: Api, options: Options) -> None:
    """With -v, say how the VM runs: what is slow may be emulated."""
    if not options.verbose or options.json:
        return
    try:
        way = server.info(start=False).get("acceleration")
    except ShedError:  # the create itself has succeeded
        return
    if way:
        note(f"  {way}")


def _by_name(sheds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all that is shown of some sheds, in their order."""
    from shed.client.messages import complete_shed

    return _in_order(map(complete_shed, sheds))


def _in_order(sheds: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(sheds, key=lambda shed: str(shed.get("name")))


def _show(options: Options, rows: list[tuple[list[str], dict[str, Any]]], first: Sequence[str] = ()) -> None:
    """Print a table of sheds; each row begins with cells for the columns `first`."""
    ends = any(shed["expires_at"] for _, shed in rows)
    more = ["PID", "UPPER", "WORKSPACE", "DIGEST"] if options.verbose else []
    headers = ["NAME", "STATUS", "IMAGE", "CPUS", "MEMORY", "CREATED", *(["EXPIRES"] if ends else []), *more]
    say(table([*first, *headers], [[*cells, *_row(shed, options, ends=ends)] for cells, shed in rows]), end="")


def _status(shed: dict[str, Any]) -> str:
    """Return the status of a shed, with why."""
    why = shed["suspended_by"] or ("kept awake" if shed["awake"] and shed["status"] == "running" else "")
    return f"{shed['status']} ({why})" if why else str(shed["status"])


def _row(shed: dict[str, Any], options: Options, *, ends: bool) -> list[str]:
    """Return the cells of one shed; `ends`: with that of its end."""
    from shed.sizes import format_size

    cells = [
        shed["name"],
        _status(shed),
        shed["image"] or "-",
        str(shed["cpus"] or "-"),
        format_size(shed["memory_mb"] << 20) if shed["memory_mb"] else "-",
        age(shed["created_at"]),
        *([until(shed["expires_at"])] if ends else []),
    ]
    if not options.verbose:
        return cells
    return [
        *cells,
        str(shed["pid"] or "-"),
        format_size(shed["upper_size_bytes"]) if shed["upper_size_bytes"] else "-",
        (shed["local_dir"] or "-")
        + (f":{shed['local_dir_mode']}" if shed["local_dir_mode"] not in {"", "rw"} else "")
        + (f" +{len(shed['mounts'])}" if shed["mounts"] else ""),
        shed["image_digest"] if options.verbose > 1 else shed["image_digest"][:19] or "-",
    ]
